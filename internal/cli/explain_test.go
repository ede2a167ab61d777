package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// list reads text that must be exactly one JSON array in one line.
func list(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &all))
	require.Equal(t, 1, strings.Count(text, "\n"))
	return all
}

func TestEveryEntryOfATableIsExplainedInJSON(t *testing.T) {
	t.Parallel()
	for _, table := range storeurl.Tables() {
		got := run(t, nil, "explain", "--store", table.Store, "--json")
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		all := list(t, got.stdout)
		i := 0
		for _, f := range table.Families {
			for _, e := range f.Entries {
				v := all[i]
				require.Equal(t, []string{"after", "also", "basis", "before", "class", "code", "family", "name", "note", "remedy", "store", "why"}, fields(v))
				require.Equal(t, e.Code, v["code"])
				require.NotEmpty(t, v["remedy"], e.Code)
				require.Equal(t, []string{"disposition", "exit_code", "outcome"}, fields(v["after"].(map[string]any)))
				require.Equal(t, "not applied", v["before"].(map[string]any)["outcome"])
				i++
			}
		}
		require.Len(t, all, i)
	}
}

func TestEveryCodeOfATableCanBeAskedFor(t *testing.T) {
	t.Parallel()
	for _, table := range storeurl.Tables() {
		for _, f := range table.Families {
			for _, e := range f.Entries {
				for _, word := range append([]string{e.Code, strings.ToUpper(e.Code)}, e.Also...) {
					got := run(t, nil, "explain", "--store", table.Store, "--json", "--", word)
					require.Equal(t, exitcodes.Success, got.code, "%s %s: %s", table.Store, word, got.stderr)
					require.Contains(t, got.stdout, `"basis":"entry"`, word)
				}
			}
		}
	}
}

func TestWhatExplainPrintsFitsALine(t *testing.T) {
	t.Parallel()
	commands := [][]string{{"explain"}}
	for _, m := range exitcodes.Meanings() {
		commands = append(commands, []string{"explain", m.Name}, []string{"explain", "166"})
	}
	for _, table := range storeurl.Tables() {
		commands = append(commands, []string{"explain", "--store", table.Store})
		for _, f := range table.Families {
			commands = append(commands, []string{"explain", "--store", table.Store, "--", f.Entries[len(f.Entries)-1].Code})
		}
	}
	for _, command := range commands {
		for line := range strings.Lines(run(t, nil, command...).stdout) {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 101, "%v: %s", command, line)
		}
	}
}

func TestEveryExitStatusOfTheContractIsExplained(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"0", "1", "2", "64", "75", "78", "126", "127", "129", "143", "166"} {
		got := run(t, nil, "explain", code, "--json")
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		v := list(t, got.stdout)[0]
		require.Equal(t, []string{"code", "disposition", "last", "means", "name", "producer", "supervisors"}, fields(v))
		require.Len(t, v["supervisors"], 6)
	}
}
