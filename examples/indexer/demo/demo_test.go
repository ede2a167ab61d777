package demo

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/examples/indexer/app"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") { // a command, as the demo and the hook call it
		app.Main()
	}
	os.Exit(m.Run())
}

func TestPublishYankAndUnyankUnderPromotionKillAndOutageEndWithTheIndexEqualToTheCatalog(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Zero(t, Main(t.Context(), []string{"-pause", "150ms", "-clients", "2", "-v"}, &out, &errs), "%s%s", &out, &errs)
	for _, said := range []string{
		"generation 1 leads", "generation 2 leads, and generation 1 has ended with status 0", "the index is moved away",
		"its standby leads under g2.e3", "the index is back", "a delayed worker applies an old plan under g1.e2: ", "refused by git index index.git: held g1.e2", "index and catalog are equal: ",
	} {
		require.Contains(t, out.String(), said)
	}
}

func TestAWrongCommandLineOfTheDemoIsToldSo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-nope"}, {"word"}, {"-rounds", "0"}, {"-clients", "0"}, {"-store", "postgres://u:secret@h/d"}} {
		var out, errs bytes.Buffer
		require.Equal(t, 64, Main(t.Context(), args, &out, &errs), args)
		require.NotContains(t, errs.String(), "secret")
	}
	var out, errs bytes.Buffer
	require.Zero(t, Main(t.Context(), []string{"-h"}, &out, &errs))
}
