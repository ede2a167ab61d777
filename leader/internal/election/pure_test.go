package election_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheMachinesHaveNoClockNoGoroutineAndNoIO(t *testing.T) {
	t.Parallel()
	const ours = "github.com/fencepost/fencepost/"
	imports := []string{"fmt", "time", ours + "catalog/driver", ours + "fence", ours + "generation"}
	names := map[string][]string{"time": {"Duration", "Second", "Millisecond"}, "fmt": {"Sprintf"}, "driver": {"ID"}}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		require.NoError(t, err)
		for _, i := range file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			require.Contains(t, imports, path, name)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				t.Errorf("%v: a goroutine, or what is for them", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && names[of.Name] != nil {
					require.Contains(t, names[of.Name], n.Sel.Name, "%v", set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
