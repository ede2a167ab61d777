package supervisors

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A supervisord is a running one, of the distribution.
type supervisord struct {
	t   *testing.T
	dir string
}

// beginSupervisord runs programs until the test is over.
func beginSupervisord(t *testing.T, programs string) *supervisord {
	t.Helper()
	s := &supervisord{t, shortDir(t)}
	write(t, s.config(), fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=%[1]s/log
pidfile=%[1]s/pid
childlogdir=%[1]s
[unix_http_server]
file=%[1]s/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[1]s/socket
%[2]s`, s.dir, programs))
	cmd := exec.Command("bash", "-ec", `supervisord --configuration "$0" >/dev/null & cat; kill $!; wait $!`, s.config())
	alive, err := cmd.StdinPipe() // ends with this process at the latest
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = alive.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("supervisord ended with %v", err)
			t.Log(s.log())
		}
	})
	return s
}

func (s *supervisord) config() string { return filepath.Join(s.dir, "conf") }

func (s *supervisord) log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log")) // absent is empty
	return string(text)
}

func (s *supervisord) says(text string) {
	s.t.Helper()
	eventually(s.t, "supervisord says "+text, func() bool { return strings.Contains(s.log(), text) })
}

// states are those of the programs, such as RUNNING. Supervisorctl ends with a
// status of its own where one does not run.
func (s *supervisord) states() map[string]string {
	out, _ := exec.Command("supervisorctl", "--configuration", s.config(), "status").CombinedOutput()
	states := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			states[fields[0]] = fields[1]
		}
	}
	return states
}

// program is a section of the example with another name and command.
func program(t *testing.T, section, name, command string) string {
	t.Helper()
	_, text, found := strings.Cut(example(t, "supervisord.conf"), "[program:"+section+"]\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "\n[")
	command = strings.ReplaceAll(command, "%", "%%")
	text = regexp.MustCompile(`(?m)^command=.*$`).ReplaceAllLiteralString(text, "command="+command)
	require.Contains(t, text, command)
	return "[program:" + name + "]\n" + text + "\n"
}

func TestSupervisordDoesWithEachCodeWhatTheTableSays(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	const last = 3
	var programs strings.Builder
	for _, r := range roles() {
		programs.WriteString(program(t, "kv-9", r.name, child(t, r.name, filepath.Join(logs, r.name), last)))
	}
	s := beginSupervisord(t, programs.String())
	for _, r := range roles() {
		how, expected := fmt.Sprint("exit status ", r.Code), "not expected"
		if r.name == "killed" {
			how = "terminated by SIGKILL"
		}
		if down(t, r.Meaning, "supervisord") {
			expected = "expected"
		}
		s.says("exited: " + r.name + " (" + how + "; " + expected + ")")
		if !down(t, r.Meaning, "supervisord") {
			eventually(t, r.name+" is restarted", func() bool { return starts(filepath.Join(logs, r.name)) == last })
		}
	}
	states := s.states()
	for _, r := range roles() {
		if down(t, r.Meaning, "supervisord") {
			require.Equal(t, "EXITED", states[r.name], r.name)
			require.Equal(t, 1, starts(filepath.Join(logs, r.name)), r.name)
		} else {
			require.Equal(t, "RUNNING", states[r.name], r.name)
		}
	}
}

// Where a start may fail by ending early, a superseded server is started again.
func TestSupervisordNeedsStartsecsOfNothing(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	section := program(t, "kv-9", "superseded", child(t, "superseded", log, 9))
	s := beginSupervisord(t, strings.Replace(section, "startsecs=0\n", "startsecs=60\nstartretries=1\n", 1))
	s.says("exited: superseded (exit status 0; not expected)")
	s.says("entered FATAL state")
	require.Equal(t, 2, starts(log))
}

func TestUnderSupervisordTheEntrypointRestartsAndASupersededServerStaysDown(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	under := func(role string) string {
		return binary("fencepost") + " run --on-superseded=exit --stop-grace=30s -- " + child(t, role, filepath.Join(logs, role), 2)
	}
	s := beginSupervisord(t, program(t, "kv-8", "superseded", under("superseded"))+program(t, "kv-8", "fenced", under("fenced")))
	eventually(t, "the entrypoint restarts at once", func() bool { return starts(filepath.Join(logs, "fenced")) == 2 })
	s.says("exited: superseded (exit status 0; expected)")
	require.Equal(t, map[string]string{"fenced": "RUNNING", "superseded": "EXITED"}, s.states())
	require.Equal(t, 1, strings.Count(s.log(), "spawned: 'fenced'"))
	require.Equal(t, 1, strings.Count(s.log(), "spawned: 'superseded'"))
	out, err := exec.Command("supervisorctl", "--configuration", s.config(), "stop", "fenced").CombinedOutput()
	require.NoError(t, err, string(out))
	s.says("stopped: fenced (exit status 0)")
}
