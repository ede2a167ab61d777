package exitcodes_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func TestEveryCodeThatHasANameHasAMeaning(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "disposition.go", nil, 0)
	require.NoError(t, err)
	named := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Code" {
			named++
		}
		return true
	})
	names := 0
	for _, code := range []exitcodes.Code{exitcodes.Success, exitcodes.Failure, exitcodes.PanicExit, exitcodes.Usage, exitcodes.TempFail, exitcodes.Config, exitcodes.Restart} {
		m, ok := exitcodes.MeaningOf(code)
		require.True(t, ok, code)
		require.Equal(t, code, m.Code)
		require.Len(t, m.Supervisors, 6)
		for i, a := range m.Supervisors {
			require.NotEmpty(t, a.Does, "%d: %s", code, a.Supervisor)
			require.Equal(t, exitcodes.Meanings()[0].Supervisors[i].Supervisor, a.Supervisor)
		}
		names++
	}
	require.Equal(t, named, names, "a code of disposition.go is not in this test")
}

func TestTheMeaningsAreTheContractsOfThePackageDocumentation(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for _, m := range exitcodes.Meanings() {
		if m.Code != m.Last {
			continue
		}
		found := false
		for line := range strings.Lines(string(doc)) {
			fields := strings.Fields(strings.TrimPrefix(line, "//"))
			found = found || len(fields) > 1 && fields[0] == strconv.Itoa(int(m.Code)) && strings.HasPrefix(m.Disposition, fields[1])
		}
		require.True(t, found, "%d is %s here, and not so in doc.go", m.Code, m.Disposition)
	}
	for _, d := range []exitcodes.Disposition{exitcodes.None, exitcodes.Retry, exitcodes.Halt, exitcodes.Panic, exitcodes.GracefulExit} {
		m, ok := exitcodes.MeaningOf(d.Code())
		require.True(t, ok)
		require.Equal(t, d.String(), m.Disposition)
	}
}

func TestACodeOfAnApplicationsOwnHasNoMeaningHere(t *testing.T) {
	for _, code := range []exitcodes.Code{-1, 3, 63, 128, 193, 255, 256} {
		_, ok := exitcodes.MeaningOf(code)
		require.False(t, ok, code)
	}
	m, _ := exitcodes.MeaningOf(143)
	require.Equal(t, "signal", m.Name)
}
