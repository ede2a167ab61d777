package errordoc_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/errordoc"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func TestTheDocumentOfErrorsIsCurrent(t *testing.T) {
	var want strings.Builder
	require.NoError(t, errordoc.Write(&want))
	got, err := os.ReadFile("../../docs/errors.md")
	require.NoError(t, err)
	require.True(t, want.String() == string(got), "docs/errors.md is not what the tables say: run make docs")
}

func TestTheDocumentHasEveryEntry(t *testing.T) {
	var text strings.Builder
	require.NoError(t, errordoc.Write(&text))
	for _, table := range storeurl.Tables() {
		require.Contains(t, text.String(), "\n## "+table.Store+"\n")
		for _, f := range table.Families {
			for _, e := range f.Entries {
				require.Contains(t, text.String(), "\n| "+e.Code+" | ")
			}
		}
	}
	require.Contains(t, text.String(), "\n### 166: restart\n")
}
