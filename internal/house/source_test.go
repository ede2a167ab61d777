package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// longest is how many lines a file may have.
const longest = 499

// enders are the rooms whose code may end the process or receive its signals.
func enders() []string {
	return []string{"exitcodes", "cmd", "examples", "integration", "internal/entrypoint", "internal/lead"}
}

// A source is one Go file.
type source struct {
	name  string // from the root, with slashes
	lines int
	tree  *ast.File
	set   *token.FileSet
}

func (s source) isTest() bool {
	return strings.HasSuffix(s.name, "_test.go") || slices.ContainsFunc(
		[]string{"catalog/drivertest", "internal/testpg", "internal/testetcd", "internal/testcert"}, func(dir string) bool { return in(dir)(s.name) })
}

func (s source) at(n ast.Node) string {
	return s.name + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

func TestOnlyProgramsEndTheProcessOrReceiveItsSignals(t *testing.T) {
	t.Parallel()
	forbidden := map[string][]string{
		"os":        {"Exit"},
		"os/signal": {"Notify", "NotifyContext", "Ignore", "Reset"},
		"log":       {"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"},
	}
	for _, s := range sources(t) {
		if s.isTest() || slices.ContainsFunc(enders(), func(dir string) bool { return in(dir)(s.name) }) {
			continue
		}
		for path, names := range forbidden {
			for _, n := range s.uses(path, names...) {
				t.Errorf("%s: only %v may call %s.%s", s.at(n), enders(), path, n.Sel.Name)
			}
		}
	}
}

func TestNoTestSleeps(t *testing.T) {
	for _, s := range sources(t) {
		if !s.isTest() {
			continue
		}
		for _, n := range s.uses("time", "Sleep") {
			t.Errorf("%s: a test that sleeps: wait for what it needs, or use synctest", s.at(n))
		}
	}
}

// The conformance suite may leave out what a driver of others does not offer.
func TestNoTestSkips(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if !strings.HasSuffix(s.name, "_test.go") {
			continue
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				t.Errorf("%s: a test that skips: a test that can't reach its store fails", s.at(n))
			}
			return true
		})
	}
}

func TestNoPackageHasAnInitFunction(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function", s.at(f))
			}
		}
	}
}

func TestNoFileIsLong(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.lines > longest {
			t.Errorf("%s has %d lines, want %d at most: move what has its own name into its own file", s.name, s.lines, longest)
		}
	}
}

func TestNoFileIsNamedAfterNothing(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		base := strings.TrimSuffix(filepath.Base(s.name), ".go")
		require.NotContains(t, []string{"util", "utils", "helper", "helpers", "common", "misc"}, base, s.name)
	}
}

// uses returns where a file names one of the functions of the package at path,
// whatever it calls that package.
func (s source) uses(path string, names ...string) (found []*ast.SelectorExpr) {
	local := ""
	for _, i := range s.tree.Imports {
		if quoted, _ := strconv.Unquote(i.Path.Value); quoted == path {
			local = path[strings.LastIndex(path, "/")+1:]
			if i.Name != nil {
				local = i.Name.Name
			}
		}
	}
	if local == "" {
		return nil
	}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				found = append(found, sel)
			}
		}
		return true
	})
	return found
}

// read holds every Go file beneath the root, those of other modules in it too,
// once for all tests.
var read = sync.OnceValues(func() (all []source, err error) {
	root, err := root()
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := filepath.Base(path)
		if d.IsDir() && path != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "vendor") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		s, err := readSource(root, path)
		all = append(all, s)
		return err
	})
	return all, err
})

// sources returns every Go file beneath the root.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := read()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all
}

func readSource(root, path string) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return source{}, err
	}
	s := source{name: filepath.ToSlash(name), lines: bytes.Count(text, []byte("\n")), set: token.NewFileSet()}
	s.tree, err = parser.ParseFile(s.set, path, text, 0)
	return s, err
}
