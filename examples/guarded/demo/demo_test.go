package demo

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

func TestMain(m *testing.M) {
	if os.Getenv(ShopVar) != "" {
		Shop()
	}
	os.Exit(m.Run())
}

func TestTheZombieIsRefusedByTheGuardedTableAndOverwritesTheOther(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Zero(t, Main(t.Context(), []string{"-postgres", testpg.URL(t), "-v"}, &out, &errs), "%s%s", &out, &errs)
	require.Contains(t, out.String(), "wrote 89, and it was accepted, exit status 0")
	require.Contains(t, out.String(), "The table has 89: 5 sales are lost.")
	require.Contains(t, out.String(), "was refused, exit status 0")
	require.Contains(t, out.String(), "refused by postgres catalog main: held g3.e3, the newest is g4.e4 of green")
	require.Contains(t, out.String(), "The table has 85: nothing is lost.")
}

func TestADemoWithoutAServerSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, 64, Main(t.Context(), []string{"-postgres", ""}, &out, &errs))
	require.Contains(t, errs.String(), "make demo-guarded")
	require.Equal(t, 64, Main(t.Context(), []string{"-nope"}, &out, &errs))
	require.Equal(t, 1, Main(t.Context(), []string{"-postgres", "postgres://127.0.0.1:1/x"}, &out, &errs))
}
