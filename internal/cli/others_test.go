package cli_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

// neighbours returns for each store a function that names catalogs beside each other in it.
func neighbours(t *testing.T) map[string]func(name string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other.db"), make([]byte, 4096), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text.db"), []byte(strings.Repeat("no database. ", 1024)[:8192]), 0o600))
	pg, cluster := testpg.URL(t), testetcd.URL(t)
	return map[string]func(string) string{
		"sqlite": func(name string) string { return "sqlite:" + filepath.Join(dir, name) },
		"postgres": func(name string) string {
			return testpg.With(t, pg, func(u *url.URL) {
				q := u.Query()
				q.Set("catalog", name)
				u.RawQuery = q.Encode()
			})
		},
		"etcd": func(name string) string { return cluster + "/" + name },
	}
}

func TestAMistypedNameDoesNotReadAsAHealthyEmptyCatalog(t *testing.T) {
	t.Parallel()
	for store, at := range neighbours(t) {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			nothing := func(*catalog.Catalog) error { return nil }
			require.NoError(t, hold(t.Context(), at("shop"), 1, "blue", "", nothing))
			require.NoError(t, hold(t.Context(), at("shop-2"), 1, "blue", "", nothing))
			mistyped := map[string]string{storeurl.EnvVar: at("shpo")}
			before := everything(t, at("shpo"))
			for _, command := range []string{"status", "history", "preflight --generation 2"} {
				got := run(t, mistyped, strings.Fields(command)...)
				require.Equal(t, exitcodes.Success, got.code, got.stderr)
				require.Contains(t, got.stdout, nameOf(t, at("shop")), command)
				require.Empty(t, got.stderr)
			}
			for _, command := range []string{"dump", "dump --log", "work status", "work list", "work check", "reap --dry-run"} {
				got := run(t, mistyped, strings.Fields(command)...)
				require.Equal(t, exitcodes.Success, got.code, got.stderr)
				require.Contains(t, got.stderr, "nobody ever claimed "+nameOf(t, at("shpo"))+"; other catalogs of the same store: ", command)
				require.Contains(t, got.stderr, nameOf(t, at("shop-2")), command)
				require.Equal(t, 1, strings.Count(got.stderr, "\n"))
			}
			require.Contains(t, object(t, run(t, mistyped, "work", "check", "--json").stderr)["warning"], nameOf(t, at("shop")))
			others := object(t, run(t, mistyped, "status", "--json").stdout)["other_catalogs"].(map[string]any)
			beside := others["catalogs"].([]any)[:2]
			require.ElementsMatch(t, []any{nameOf(t, at("shop")), nameOf(t, at("shop-2"))}, beside, "as --store takes them")
			if store != "etcd" { // which other tests share
				require.Len(t, others["catalogs"], 2)
				require.Equal(t, false, others["more"])
			}
			require.Nil(t, object(t, run(t, map[string]string{storeurl.EnvVar: at("shop")}, "status", "--json").stdout)["other_catalogs"], "a catalog that was claimed")
			require.Equal(t, before, everything(t, at("shpo")), "a look creates nothing")
			require.Equal(t, exitcodes.Success, run(t, mistyped, "generation", "next").code)
			others = object(t, run(t, mistyped, "status", "--json").stdout)["other_catalogs"].(map[string]any)
			require.NotContains(t, others["catalogs"], nameOf(t, at("shpo")), "a catalog with a board is not another one than itself")
		})
	}
}

// nameOf is how a store names itself.
func nameOf(t *testing.T, at string) string {
	t.Helper()
	store, err := storeurl.Open(t.Context(), at, storeurl.Config{})
	require.NoError(t, err)
	defer store.Close()
	return store.String()
}

// everything returns what can be seen of a catalog.
func everything(t *testing.T, at string) string {
	t.Helper()
	store, err := storeurl.Open(t.Context(), at, storeurl.Config{})
	require.NoError(t, err)
	defer store.Close()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	notes, err := store.Notes(t.Context(), "")
	require.NoError(t, err)
	files := ""
	if path, ok := strings.CutPrefix(store.String(), "sqlite:"); ok {
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		files = fmt.Sprint(entries)
	}
	return fmt.Sprint(head, notes, files)
}

func TestTheListOfOtherCatalogsIsBounded(t *testing.T) {
	t.Parallel()
	for store, at := range neighbours(t) {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			for i := range driver.MaxOthers + 1 {
				require.NoError(t, hold(t.Context(), at(fmt.Sprint("c", i)), 1, "blue", "", func(*catalog.Catalog) error { return nil }))
			}
			others := object(t, run(t, map[string]string{storeurl.EnvVar: at("x")}, "status", "--json").stdout)["other_catalogs"].(map[string]any)
			require.Len(t, others["catalogs"], driver.MaxOthers)
			require.Equal(t, true, others["more"])
		})
	}
}
