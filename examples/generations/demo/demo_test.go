package demo

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

func TestMain(m *testing.M) {
	if os.Getenv(RoleVar) != "" {
		Process()
	}
	os.Exit(m.Run())
}

func TestAZombieThatReapsRemovesNothingOfItsSuccessorAndOneThatSweepsDoes(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Zero(t, Main(t.Context(), []string{"-postgres", testpg.URL(t), "-tools", "5", "-v"}, &out, &errs), "%s%s", &out, &errs)
	require.Contains(t, out.String(), "removed 14 things, exit status 0")
	require.Contains(t, out.String(), "folders of generations [7] and schemas of [7] are left: those of 8, which leads, are gone.")
	require.Contains(t, out.String(), "removed 0 things, exit status 0")
	require.Contains(t, out.String(), "green and 5 tools at once: 10 removed, ")
	require.Contains(t, out.String(), "folders of generations [6 7 8] and schemas of [6 7 8] are left: the one that leads, and those for a rollback.")
}

func TestADemoWithoutAServerSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, 64, Main(t.Context(), []string{"-postgres", ""}, &out, &errs))
	require.Contains(t, errs.String(), "make demo-generations")
	require.Equal(t, 64, Main(t.Context(), []string{"-nope"}, &out, &errs))
	require.Equal(t, 1, Main(t.Context(), []string{"-postgres", "postgres://127.0.0.1:1/x"}, &out, &errs))
}
