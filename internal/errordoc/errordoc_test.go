package errordoc_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
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

func TestTheTableOfTheSupervisorsIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/supervisors.md")
	require.NoError(t, err)
	want, err := errordoc.Supervisors(string(page))
	require.NoError(t, err)
	require.True(t, want == string(page), "docs/supervisors.md is not what exitcodes.Meanings says: run make docs")
	for _, m := range exitcodes.Meanings() {
		if m.Producer != "fencepost run, as shells do" {
			require.Contains(t, want, " | "+m.Because()+" | ")
		}
	}

	_, err = errordoc.Supervisors("a page without a table")
	require.ErrorContains(t, err, "no place for its table")
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
