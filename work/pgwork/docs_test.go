package pgwork_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

// TestThePageHasEveryParameterLimitAndState holds docs/work.md against the function.
func TestThePageHasEveryParameterLimitAndState(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/work.md")
	require.NoError(t, err)
	_, page, found := strings.Cut(string(text), "## Enqueue from a web server")
	require.True(t, found)
	page, _, _ = strings.Cut(page, "\n## ")
	_, parameters, found := strings.Cut(pgwork.Schema(), "function fencepost.enqueue(")
	require.True(t, found)
	parameters, _, _ = strings.Cut(parameters, ") returns")
	for parameter := range strings.SplitSeq(parameters, ",") {
		words := strings.Fields(parameter)
		row := fmt.Sprintf("| `%s` | %s | ", words[0], words[1])
		if _, value, has := strings.Cut(parameter, " default "); has {
			row += strings.ReplaceAll("`"+value+"`", "`null`", "null")
			row = strings.NewReplacer("`0`", "0", "`true`", "true").Replace(row)
		}
		require.Contains(t, page, row)
	}
	for _, limit := range []string{fmt.Sprintf("1 to %d bytes", work.MaxName), fmt.Sprintf("at most %d bytes", work.MaxKey), fmt.Sprintf("from -%d to %d", work.MaxPriority, work.MaxPriority),
		"1 MiB", "256 such locks", "WRK01", "WRK02", "WRK03", "WRK04", "WRK05"} {
		require.Contains(t, page, limit)
	}
	require.Equal(t, 1<<20, work.MaxPayload)
}

// TestEveryRefusalIsExplained holds the table behind fencepost explain against the functions.
func TestEveryRefusalIsExplained(t *testing.T) {
	t.Parallel()
	states := slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`'(WRK..)'`).FindAllString(pgwork.Schema(), -1))))
	require.Len(t, states, 5)
	for _, state := range states {
		found := postgres.Errors().Find(strings.Trim(state, "'"))
		require.Len(t, found, 1, state)
		require.Equal(t, driver.Listed, found[0].Basis)
	}
}
