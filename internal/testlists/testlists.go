// Package testlists reads, out of the sources of other modules and of Go, which
// errors they have, and compares that with a driver's table. So an upgrade that
// brings one more error fails a test, until the table says what it means.
package testlists

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A Package is the source of one package, without its tests.
type Package struct{ files []*ast.File }

// Source reads the package at an import path, as this system builds it.
func Source(t testing.TB, path string) Package {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}`, path).Output()
	require.NoError(t, err, path)
	var p Package
	for _, name := range strings.Fields(string(out)) {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		p.files = append(p.files, f)
	}
	require.NotEmpty(t, p.files, path)
	return p
}

// Vars returns the package-level variables whose names begin with prefix.
func (p Package) Vars(prefix string) []string {
	var names []string
	p.each(token.VAR, prefix, func(name string, _, _ ast.Expr) { names = append(names, name) })
	slices.Sort(names)
	return slices.Compact(names)
}

// Numbers returns the constants that are written as a number, by name; where
// typ is given, only those of that type.
func (p Package) Numbers(prefix, typ string) map[string]int {
	found := map[string]int{}
	p.each(token.CONST, prefix, func(name string, declared, v ast.Expr) {
		if call, ok := v.(*ast.CallExpr); ok && len(call.Args) == 1 {
			declared, v = call.Fun, call.Args[0]
		}
		if id, ok := declared.(*ast.Ident); typ != "" && (!ok || id.Name != typ) {
			return
		}
		if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.INT {
			if n, err := strconv.ParseInt(lit.Value, 0, 64); err == nil {
				found[name] = int(n)
			}
		}
	})
	return found
}

// Texts returns the constants or variables that are a text, or a text turned
// into some type, by name.
func (p Package) Texts(kind token.Token) map[string]string {
	found := map[string]string{}
	p.each(kind, "", func(name string, _, v ast.Expr) {
		if call, ok := v.(*ast.CallExpr); ok && len(call.Args) == 1 {
			v = call.Args[0]
		}
		if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				found[name] = text
			}
		}
	})
	return found
}

// Length returns how many places the array of a variable has, or zero where
// there is no such variable.
func (p Package) Length(name string) (length int) {
	p.each(token.VAR, name, func(found string, typ, v ast.Expr) {
		if lit, ok := v.(*ast.CompositeLit); ok {
			typ = lit.Type
		}
		array, ok := typ.(*ast.ArrayType)
		if !ok || found != name {
			return
		}
		if n, ok := array.Len.(*ast.BasicLit); ok {
			length, _ = strconv.Atoi(n.Value)
		}
	})
	return length
}

// Iota returns the names of the constants of a block that counts in a type.
func (p Package) Iota(typ string) (names []string) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST || len(g.Specs) == 0 {
				continue
			}
			first, ok := g.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident)
			if !ok || first.Name != typ {
				continue
			}
			for _, s := range g.Specs {
				names = append(names, s.(*ast.ValueSpec).Names[0].Name)
			}
		}
	}
	return names
}

// Types returns the types that have a method Error.
func (p Package) Types() (names []string) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			m, ok := d.(*ast.FuncDecl)
			if !ok || m.Recv == nil || m.Name.Name != "Error" || m.Type.Results == nil || m.Type.Params.NumFields() != 0 {
				continue
			}
			typ := m.Recv.List[0].Type
			if star, ok := typ.(*ast.StarExpr); ok {
				typ = star.X
			}
			if id, ok := typ.(*ast.Ident); ok && !slices.Contains(names, id.Name) {
				names = append(names, id.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func (p Package) each(kind token.Token, prefix string, fn func(name string, typ, value ast.Expr)) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != kind {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if strings.HasPrefix(name.Name, prefix) && i < len(v.Values) {
						fn(name.Name, v.Type, v.Values[i])
					}
				}
			}
		}
	}
}

// Missing returns which of the names no entry of the table is called by: its
// code, its name, or another spelling.
func Missing(table driver.Table, names []string) (missing []string) {
	known := map[string]bool{}
	for _, f := range table.Families {
		for _, e := range f.Entries {
			known[e.Code], known[e.Name] = true, true
			for _, other := range e.Also {
				known[other] = true
			}
		}
	}
	for _, name := range names {
		if !known[name] {
			missing = append(missing, name)
		}
	}
	return missing
}

// Qualify puts a package's name before each name.
func Qualify(pkg string, names []string) []string {
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, pkg+"."+name)
	}
	return all
}

// Exported returns the names that a package exports.
func Exported(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !ast.IsExported(name) })
}

// CheckOwn checks that a driver's own errors are in its table, but for those
// that never leave it, or only within another.
func CheckOwn(t *testing.T, path string, table driver.Table, within ...string) {
	t.Helper()
	own := Source(t, path).Texts(token.VAR)
	for _, name := range within {
		require.Contains(t, own, name)
		delete(own, name)
	}
	require.NotEmpty(t, own)
	for name, text := range own {
		require.Empty(t, Missing(table, []string{text}), "%s is not in the table", name)
	}
}

// Check checks what holds for every table: each entry has its reason, says what
// to do where a person must do something, stands once, and no write that is not
// known to be refused counts as such.
func Check(t *testing.T, table driver.Table) {
	t.Helper()
	require.NotEmpty(t, table.Store)
	seen := map[string]bool{}
	for _, f := range table.Families {
		require.NotEmpty(t, f.Name)
		require.NotEmpty(t, f.Source, f.Name)
		require.NotEmpty(t, f.Entries, f.Name)
		for _, e := range f.Entries {
			require.NotEmpty(t, e.Code)
			require.NotEmpty(t, e.Name, e.Code)
			require.False(t, seen[e.Code], "%s stands twice", e.Code)
			seen[e.Code] = true
			require.NotEmpty(t, e.Why, e.Code)
			require.NotContains(t, e.Why, "\n", e.Code)
			require.Equal(t, driver.NotApplied, e.Before.Outcome, "%s: nothing was sent, so nothing can have landed", e.Code)
			for _, c := range []driver.Class{e.Before, e.After} {
				if c.Disposition >= exitcodes.Halt {
					require.NotEmpty(t, c.Remedy, "%s: somebody must be told what to do", e.Code)
				}
				require.LessOrEqual(t, c.Disposition, exitcodes.Panic, "%s: no error of a store is a graceful exit", e.Code)
			}
			require.True(t, e.Match != nil || f.Key != nil, "%s: nothing leads to it", e.Code)
		}
	}
}
