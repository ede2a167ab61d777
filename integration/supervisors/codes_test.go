package supervisors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A role is one way to end. What follows it under each supervisor is what
// exitcodes.Meanings says, of which fencepost explain and the table in
// docs/supervisors.md are made; the tests play it.
type role struct {
	name string
	exitcodes.Meaning
}

func roles() []role {
	var all []role
	for _, r := range []struct {
		name string
		code exitcodes.Code
	}{
		{"superseded", 0}, {"done", 0}, {"failure", 1}, {"panic", 2}, {"usage", 64},
		{"retry", 75}, {"config", 78}, {"fenced", 166}, {"killed", 128 + 9},
	} {
		m, _ := exitcodes.MeaningOf(r.code)
		m.Code = r.code
		all = append(all, role{r.name, m})
	}
	return all
}

// does is what a supervisor does after this end.
func does(t *testing.T, m exitcodes.Meaning, supervisor string) string {
	t.Helper()
	i := slices.IndexFunc(m.Supervisors, func(a exitcodes.Advice) bool { return a.Supervisor == supervisor })
	require.GreaterOrEqual(t, i, 0, supervisor)
	return m.Supervisors[i].Does
}

// down reports whether it is to stay down, and requires a word for either.
func down(t *testing.T, m exitcodes.Meaning, supervisor string) bool {
	t.Helper()
	words := does(t, m, supervisor)
	stays := strings.HasPrefix(words, "stays down")
	require.NotEqual(t, stays, strings.HasPrefix(words, "restarts"), words)
	return stays
}

// end ends this process as a role does.
func end(name string) error {
	held := fence.Token{Generation: 7, Epoch: 41}
	switch name {
	case "superseded":
		return fence.Check(held, fence.Token{Generation: 8, Epoch: 42}, fence.Holder{Name: "green"})
	case "done":
		return nil
	case "failure":
		return errors.New("plain")
	case "panic":
		panic("broken")
	case "usage":
		return exitcodes.WithCode(errors.New("no such flag"), exitcodes.Usage)
	case "retry":
		return exitcodes.With(errors.New("unreachable"), exitcodes.Retry)
	case "config":
		return exitcodes.WithCode(errors.New("no rights"), exitcodes.Config)
	case "fenced":
		return fence.Check(held, fence.Token{Generation: 7, Epoch: 42}, fence.Holder{Name: "twin"})
	case "killed":
		return errors.Join(kill(), errors.New("still here"))
	default:
		return fmt.Errorf("no such role: %q", name)
	}
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "supervisors.md"))
	require.NoError(t, err)
	return string(text)
}

func TestThePageLinksEveryFile(t *testing.T) {
	t.Parallel()
	text := page(t)
	require.NoError(t, filepath.WalkDir(examples, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(examples, path)
			require.Contains(t, text, "(../examples/supervisors/"+filepath.ToSlash(name)+")")
		}
		return err
	}))
}

func TestEveryCodeOfTheContractIsPlayed(t *testing.T) {
	t.Parallel()
	played := make(map[exitcodes.Code]bool)
	for _, r := range roles() {
		played[r.Code] = true
	}
	for _, m := range exitcodes.Meanings() {
		if m.Code != m.Last || strings.HasPrefix(m.Producer, "fencepost run") {
			continue // signals, of which one is, and what run alone ends with
		}
		require.True(t, played[m.Code], "code %d", m.Code)
	}
}

// What fencepost run alone ends with is named in the files that start it.
func TestTheFilesWithTheEntrypointKeepItDownAsTheMeaningsSay(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]string{
		"systemd/fencepost-run@.service": "\nRestartPreventExitStatus=", "supervisord.conf": "\nexitcodes=0,",
	} {
		_, rest, found := strings.Cut(example(t, name), setting)
		require.True(t, found, name)
		line, _, _ := strings.Cut(rest, "\n")
		require.Equal(t, []string{"64", "126", "127"}, strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' }), name)
	}
	for _, code := range []exitcodes.Code{64, 126, 127} {
		m, _ := exitcodes.MeaningOf(code)
		require.Equal(t, fmt.Sprintf("ends with %d", code), does(t, m, "fencepost run"))
		require.True(t, down(t, m, "systemd"))
		require.True(t, down(t, m, "supervisord"))
	}
}

// Each note names the code in the setting of the unit that it is about.
func TestTheNotesNameTheSettingsOfTheFiles(t *testing.T) {
	t.Parallel()
	unit := example(t, "systemd/fencepost@.service")
	_, rest, _ := strings.Cut(unit, "\nRestartPreventExitStatus=")
	line, _, _ := strings.Cut(rest, "\n")
	prevented := strings.Fields(line)
	for _, r := range roles() {
		status := fmt.Sprint(r.Code)
		i := slices.IndexFunc(r.Supervisors, func(a exitcodes.Advice) bool { return a.Supervisor == "systemd" })
		noted := strings.Contains(r.Supervisors[i].Note, "RestartPreventExitStatus="+status)
		require.Equal(t, slices.Contains(prevented, status), noted, "code %s", status)
	}
	require.Contains(t, unit, "\nRestart=on-failure\n")
}
