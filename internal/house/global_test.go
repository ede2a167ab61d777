package house

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"testing"
)

// A package-level variable is a constant that the language has no word for: an
// error, a table. Nothing writes to it once it is declared.
func TestNoPackageHasAVariableThatChanges(t *testing.T) {
	t.Parallel()
	all := sources(t)
	globals := globals(all)
	for _, s := range all {
		if s.isTest() {
			continue
		}
		for _, v := range s.variables() {
			if v.spec.Values == nil && v.name.Name != "_" || s.holdsState(v.spec) {
				t.Errorf("%s: the package-level variable %s can hold state", s.at(v.name), v.name.Name)
			}
		}
		for _, written := range s.writes(globals[path.Dir(s.name)]) {
			t.Errorf("%s: writes to the package-level variable %s", s.at(written), written.Name)
		}
	}
}

// A variable is one that a file declares at package level.
type variable struct {
	name *ast.Ident
	spec *ast.ValueSpec
}

func (s source) variables() (found []variable) {
	for _, d := range s.tree.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			for _, name := range v.Names {
				found = append(found, variable{name, v})
			}
		}
	}
	return found
}

// globals returns the names that each folder's package declares.
func globals(all []source) map[string][]string {
	names := map[string][]string{}
	for _, s := range all {
		for _, v := range s.variables() {
			if v.name.Name != "_" {
				names[path.Dir(s.name)] = append(names[path.Dir(s.name)], v.name.Name)
			}
		}
	}
	return names
}

// holdsState reports whether a variable is made to be changed: a lock, an
// atomic, a channel, or what make makes.
func (s source) holdsState(v *ast.ValueSpec) (found bool) {
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ChanType:
			found = true
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "make" || f.Name == "new") {
				found = true
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "sync" || x.Name == "atomic") {
				found = true
			}
		}
		return true
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, value := range v.Values {
		ast.Inspect(value, look)
	}
	return found
}

// writes returns where a file assigns to one of the names, or to a part of it.
func (s source) writes(names []string) (found []*ast.Ident) {
	add := func(target ast.Expr) {
		if id := base(target); id != nil && slices.Contains(names, id.Name) && atPackageLevel(s.tree, id) {
			found = append(found, id)
		}
	}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, target := range n.Lhs {
				if n.Tok != token.DEFINE {
					add(target)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (f.Name == "delete" || f.Name == "clear") {
				add(n.Args[0])
			}
		}
		return true
	})
	return found
}

// base returns the variable of which e is a part.
func base(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.IndexExpr:
		return base(e.X)
	case *ast.SelectorExpr:
		return base(e.X)
	case *ast.StarExpr:
		return base(e.X)
	case *ast.ParenExpr:
		return base(e.X)
	}
	return nil
}

// atPackageLevel reports whether id is not a local name that hides the
// package's: the parser resolves names within a file, and leaves those of other
// files open.
func atPackageLevel(file *ast.File, id *ast.Ident) bool {
	return id.Obj == nil || file.Scope.Lookup(id.Name) == id.Obj
}
