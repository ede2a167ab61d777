package cli_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// What a person reads of lead in docs/guards.md is what the command has.
func TestTheGuidesTablesHaveEveryFlagAndVariableOfLead(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/guards.md")
	require.NoError(t, err)
	section := regexp.MustCompile(`(?s)## Programs in any language\n.*?\n## `).FindString(string(page))
	require.NotEmpty(t, section)
	got := run(t, nil, "lead", "--help")
	require.Equal(t, exitcodes.Success, got.code)
	flags := regexp.MustCompile(`(?m)^      (--[a-z-]+)`).FindAllStringSubmatch(got.stdout, -1)
	require.Greater(t, len(flags), 20)
	ours := map[string]bool{"--help": true, "--store": true, "--json": true, "--timeout": true, "--store-timeout": true}
	for _, f := range flags {
		if ours[f[1]] {
			continue // of every command
		}
		ours[f[1]] = true
		require.Contains(t, section, "`"+f[1]+"`", "the guide has no flag %s", f[1])
	}
	for _, f := range regexp.MustCompile("`(--[a-z-]+)`").FindAllStringSubmatch(section, -1) {
		require.True(t, ours[f[1]], "the guide has a flag %s, and the command none", f[1])
	}
	for _, name := range regexp.MustCompile(`FENCEPOST_[A-Z_]+`).FindAllString(got.stdout, -1) {
		if name != "FENCEPOST_STORE" {
			require.Contains(t, section, name)
		}
	}
}
