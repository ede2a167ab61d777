package demo

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachRoundHasACatalogOfItsOwn(t *testing.T) {
	for store, want := range map[string]string{
		"":                                      "sqlite:/tmp/x/bluegreen-id-1.db",
		"sqlite:/data/kv.db":                    "sqlite:/data/kv.db-bluegreen-id-1",
		"postgres://u@h/db":                     "postgres://u@h/db?catalog=bluegreen-id-1",
		"postgres://u@h/db?sslmode=disable":     "postgres://u@h/db?sslmode=disable&catalog=bluegreen-id-1",
		"postgresql://u:a?b@h/db":               "postgresql://u:a?b@h/db?catalog=bluegreen-id-1",
		"postgres://h/db?catalog=main&x=1":      "postgres://h/db?catalog=main&x=1&catalog=bluegreen-id-1",
		"etcd://127.0.0.1:2379":                 "etcd://127.0.0.1:2379/bluegreen-id-1",
		"etcds://127.0.0.1:2379,h:2379/prefix/": "etcds://127.0.0.1:2379,h:2379/prefix/bluegreen-id-1",
	} {
		d := &demo{dir: "/tmp/x", id: "id", opts: options{store: store}}
		require.Equal(t, want, d.storeURL(1))
		require.NotEqual(t, d.storeURL(1), d.storeURL(2))
	}
}

func TestACommandLineThatIsWrongIsToldSo(t *testing.T) {
	for _, args := range [][]string{{"-nonsense"}, {"word"}, {"-clients", "0"}, {"-store", "postgres://u:secret@h/db"}} {
		var stdout, stderr bytes.Buffer
		code := Main(context.Background(), Env{Args: args, Getenv: func(string) string { return "" }, Stdout: &stdout, Stderr: &stderr})
		require.Equal(t, 64, code, args)
		require.Empty(t, stdout.String())
		require.NotContains(t, stderr.String(), "secret")
		require.Contains(t, stderr.String(), "bluegreen: ")
	}
}

func TestHelpIsAnAnswer(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Zero(t, Main(context.Background(), Env{Args: []string{"-h"}, Stdout: &stdout, Stderr: &stderr}))
	require.Contains(t, stdout.String(), "-json")
	require.Empty(t, stderr.String())
}

func TestAReportIsGoodOnlyWhereNothingIsWrong(t *testing.T) {
	require.True(t, report{Requests: 5, Failed: 1}.good())
	for _, r := range []report{{Lost: 1}, {Duplicated: 1}, {StaleAccepted: 1}, {RefusedButWritten: 1}, {StepsFailed: []string{"x"}}} {
		require.False(t, r.good())
		require.Contains(t, r.verdict(), "NOT GOOD")
	}
}
