package demo

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestMain(m *testing.M) {
	if os.Getenv(ShopVar) != "" {
		Shop()
	}
	os.Exit(m.Run())
}

func TestTheZombieIsRefusedByBothGuardedStoresAndOverwritesTheOthers(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Zero(t, Main(t.Context(), []string{"-postgres", testpg.URL(t), "-etcd", testetcd.URL(t)}, &out, &errs), "%s%s", &out, &errs)
	require.Equal(t, 2, strings.Count(out.String(), "5 sales are lost."), "%s", &out)
	require.Equal(t, 2, strings.Count(out.String(), "nothing is lost."))
	require.Contains(t, out.String(), "refused by postgres register main: held g3.e3, the newest is g4.e4 of green")
	require.Contains(t, out.String(), "refused by sqlite register: held g3.e3, the newest is g4.e4 of green")
}

func TestADemoWithoutServersSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, 64, Main(t.Context(), []string{"-postgres", ""}, &out, &errs))
	require.Contains(t, errs.String(), "make demo-twostores")
	require.Equal(t, 64, Main(t.Context(), []string{"-nope"}, &out, &errs))
	require.Equal(t, 1, Main(t.Context(), []string{"-postgres", "postgres://127.0.0.1:1/x", "-etcd", "etcd://127.0.0.1:1"}, &out, &errs))
}
