package errorlists

import (
	"bufio"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgerrcode" // its source is read
	_ "github.com/lib/pq/pqerror"  // its source is read
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testlists"
)

var sqlstate = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// codes returns the SQLSTATEs of a package that names each.
func codes(t *testing.T, path string, kind token.Token) (found []string) {
	for _, text := range testlists.Source(t, path).Texts(kind) {
		if sqlstate.MatchString(text) && strings.ContainsAny(text, "0123456789") { // and no severity
			found = append(found, text)
		}
	}
	return found
}

// installed returns the SQLSTATEs of the list that comes with the installed
// server, by code, with their names.
func installed(t *testing.T) map[string]string {
	out, err := exec.CommandContext(t.Context(), "bash", "-c", "ls /usr/share/postgresql/*/errcodes.txt").Output()
	require.NoError(t, err, "no server is installed: scripts/postgres.sh install")
	files := strings.Fields(string(out))
	f, err := os.Open(filepath.Clean(files[len(files)-1]))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	found := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 4 && sqlstate.MatchString(fields[0]) {
			found[fields[0]] = fields[3]
		}
	}
	return found
}

func TestTheTableHasEverySQLSTATE(t *testing.T) {
	older := codes(t, "github.com/jackc/pgerrcode", token.CONST)
	newer := codes(t, "github.com/lib/pq/pqerror", token.VAR)
	newer = append(newer, codes(t, "github.com/lib/pq/pqerror", token.CONST)...)
	require.GreaterOrEqual(t, len(older), 260)
	require.GreaterOrEqual(t, len(newer), 262)
	names := installed(t)
	require.GreaterOrEqual(t, len(names), 250)
	all := slices.Concat(older, newer)
	for code := range names {
		all = append(all, code)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	require.GreaterOrEqual(t, len(all), 263)

	table := postgres.Errors()
	require.Empty(t, testlists.Missing(table, all))
	require.Equal(t, []string{"53999"}, testlists.Missing(table, append(all, "53999")), "one more upstream")
	for i, f := range table.Families {
		if f.Name != "SQLSTATE" {
			continue
		}
		for j, e := range f.Entries {
			if name, ok := names[e.Code]; ok {
				require.Equal(t, name, e.Name, e.Code)
			}
			if e.Code == "10000" {
				continue // stands for a class whose only code is another
			}
			require.Contains(t, all, e.Code, "no list has it")
			require.Equal(t, driver.Listed, f.Code(e.Code).Basis)
			less := postgres.Errors()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.Equal(t, []string{e.Code}, testlists.Missing(less, all))
		}
	}
}

func TestEveryClassHasAnEntryThatSpeaksForIt(t *testing.T) {
	for _, f := range postgres.Errors().Families {
		if f.Name != "SQLSTATE" {
			continue
		}
		for _, e := range f.Entries {
			m := f.Code(e.Code[:2] + "ZZZ")
			require.Equal(t, driver.ByClass, m.Basis, e.Code)
			require.Equal(t, driver.Unknown, m.Class(true).Outcome, e.Code)
		}
	}
}
