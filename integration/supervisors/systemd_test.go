package supervisors

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// verify runs systemd-analyze verify where the programs that the units name are
// there, and returns all that it prints.
func verify(t *testing.T, unit string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "bash", "-ec",
		`mount -t tmpfs tmpfs /usr/local/bin; cp "$0"/* /usr/local/bin; systemd-analyze verify --man=no "$1" 2>&1`,
		os.Getenv(binariesEnv), unit)
	out, err := cmd.CombinedOutput()
	if len(out) == 0 {
		require.NoError(t, err)
	}
	return string(out)
}

func TestSystemdAnalyzeVerifyPrintsNothing(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"fencepost@.service", "fencepost-run@.service"} {
		path, err := filepath.Abs(filepath.Join(examples, "systemd", unit))
		require.NoError(t, err)
		require.Empty(t, verify(t, path))
	}
}

// The settings that came with systemd 254 are all that an older one complains of.
func TestTheDropInIsVerifiedByTheSystemdThatItIsFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unit := filepath.Join(dir, "fencepost@.service")
	write(t, unit, example(t, "systemd/fencepost@.service"))
	write(t, unit+".d/backoff.conf", example(t, "systemd/from-254/backoff.conf"))
	said := verify(t, unit)
	if systemdVersion(t) < 254 {
		for _, setting := range []string{"RestartSteps", "RestartMaxDelaySec"} {
			line := regexp.MustCompile(`.*backoff\.conf:\d+: Unknown key (name )?'` + setting + `' in section .?Service.?, ignoring\.\n`)
			require.Regexp(t, line, said)
			said = line.ReplaceAllString(said, "")
		}
	}
	require.Empty(t, said)
}

func systemdVersion(t *testing.T) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "--version").Output()
	require.NoError(t, err)
	version, err := strconv.Atoi(strings.Fields(string(out))[1])
	require.NoError(t, err)
	return version
}

// A systemd is a running one, of a user, with units of its own.
type systemd struct {
	t   *testing.T
	dir string
	pid int // of the first process in its namespaces
}

// beginSystemd runs a systemd that has these units, until the test is over, or
// its process is. It remembers how those units ended that are named.
func beginSystemd(t *testing.T, units map[string]string, remember ...string) *systemd {
	t.Helper()
	dir := shortDir(t)
	// A unit that is down and that no other names is forgotten, and how it ended.
	units["test.target"] = "[Unit]\nDefaultDependencies=no\nAfter=" + strings.Join(remember, " ") + "\n"
	for name, text := range units {
		write(t, filepath.Join(dir, "config", "systemd", "user", name), text)
	}
	var said bytes.Buffer
	cmd := exec.Command("bash", "testdata/systemd.sh", dir, filepath.Base(dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	cmd.Stdout, cmd.Stderr = &said, &said
	alive, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start(), "systemd runs in namespaces, which only root may make")
	t.Cleanup(func() {
		_ = alive.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("systemd ended with %v, and said:\n%s", err, said.String())
		}
	})
	s := &systemd{t, dir, cmd.Process.Pid}
	eventually(t, "systemd answers", func() bool {
		_, err := s.systemctl("is-active", "test.target")
		return err == nil
	})
	return s
}

func (s *systemd) systemctl(args ...string) (string, error) {
	enter := []string{"--mount", "--pid", "--target", strconv.Itoa(s.pid), "systemctl", "--user"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Join(s.dir, "run"))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *systemd) must(args ...string) string {
	s.t.Helper()
	out, err := s.systemctl(args...)
	require.NoError(s.t, err, out)
	return out
}

func (s *systemd) show(unit, property string) string {
	s.t.Helper()
	return s.must("show", "--value", "--property="+property, unit)
}

// rest waits until a unit runs for good, from its lastStart on, or is down for
// good: not in a start, an end or a delay.
func (s *systemd) rest(unit, log string) string {
	s.t.Helper()
	var state string
	eventually(s.t, unit+" comes to rest", func() bool {
		state = s.show(unit, "SubState")
		n := starts(log)
		return n > 0 && (state == "dead" || state == "failed") || n == lastStart && state == "running"
	})
	return state
}

// dead waits until a unit is down, as one that is done.
func (s *systemd) dead(unit string) {
	s.t.Helper()
	eventually(s.t, unit+" is down", func() bool { return s.show(unit, "SubState") == "dead" })
	require.Equal(s.t, "success", s.show(unit, "Result"))
	require.Equal(s.t, "0", s.show(unit, "ExecMainStatus"))
	require.Equal(s.t, "0", s.show(unit, "NRestarts"))
	require.NotEmpty(s.t, s.show(unit, "ExecMainExitTimestamp"), "it ran")
}

// lastStart is above the five starts after which systemd gives up by default.
const lastStart = 7

// child is the test binary as what is supervised.
func child(t *testing.T, role, log string, last int) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return fmt.Sprintf("%s child %s %s %d", self, role, log, last)
}

// asIs is what a test must change of a unit in examples: the command, and what
// differs between the systemd of a machine and that of a user.
func asIs(command string) string {
	return "[Service]\nUser=\nEnvironmentFile=\nExecStart=\nExecStart=" + command + "\n"
}

// onlyFor also makes it quick, where the delay is not what is tested.
func onlyFor(command string) string { return asIs(command) + "RestartSec=20ms\n" }

func TestSystemdDoesWithEachCodeWhatTheTableSays(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	all := roles()
	early := all[0]
	early.name = "early-" + early.name
	all = append(all, early)
	var names []string
	for _, r := range all {
		names = append(names, "fencepost@"+r.name+".service")
	}
	s := beginSystemd(t, map[string]string{
		"fencepost@.service":             example(t, "systemd/fencepost@.service"),
		"fencepost@.service.d/test.conf": onlyFor(child(t, "%i", logs+"/%i", lastStart)),
	}, names...)
	s.must(append([]string{"start", "--no-block"}, names...)...)
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			unit, log := "fencepost@"+r.name, filepath.Join(logs, r.name)
			state := s.rest(unit, log)
			switch {
			case !down(t, r.Meaning, "systemd"):
				require.Equal(t, "running", state)
				require.Equal(t, lastStart, starts(log), "restarted above systemd's own limit")
			case does(t, r.Meaning, "systemd") == "stays down":
				s.dead(unit)
				require.Equal(t, 1, starts(log))
			default:
				require.Equal(t, "failed", state)
				require.Equal(t, 1, starts(log))
				require.Equal(t, fmt.Sprint(r.Code), s.show(unit, "ExecMainStatus"))
			}
		})
	}
	require.Contains(t, s.show("fencepost@superseded", "StatusText"), "superseded: held g7.e41, the store has g8.e42 of green")
}

func TestWhatTheFilesWarnOfIsSo(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	s := beginSystemd(t, map[string]string{
		"fencepost@.service":             example(t, "systemd/fencepost@.service"),
		"fencepost@.service.d/test.conf": onlyFor(child(t, "fenced", logs+"/%i", lastStart)),
		// systemd's own limit gives a fenced server up.
		"fencepost@limited.service.d/limit.conf": "[Unit]\nStartLimitIntervalSec=10s\nStartLimitBurst=5\n",
		// 166 as a success keeps it down.
		"fencepost@success.service.d/limit.conf": "[Service]\nSuccessExitStatus=166\n",
	}, "fencepost@limited.service", "fencepost@success.service")
	for unit, want := range map[string]struct {
		state  string
		starts int
	}{"limited": {"failed", 5}, "success": {"dead", 1}} {
		s.must("start", "--no-block", "fencepost@"+unit)
		log := filepath.Join(logs, unit)
		require.Equal(t, want.state, s.rest("fencepost@"+unit, log), unit)
		require.Equal(t, want.starts, starts(log), unit)
	}
}

// generation is the environment of one generation of kvserver.
func (s *systemd) generation(t *testing.T, number int) string {
	t.Helper()
	path := filepath.Join(s.dir, fmt.Sprint(number)+".env")
	write(t, path, fmt.Sprintf("FENCEPOST_STORE=sqlite:%s/catalog.db\nFENCEPOST_ADMIN=%s\nFENCEPOST_LISTEN=%s\n", s.dir, free(t), free(t)))
	return path
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// serverUnits are the examples with the programs where they were built, and the
// environment where the test can write it.
func serverUnits(t *testing.T, units map[string]string) {
	t.Helper()
	for _, name := range []string{"fencepost@.service", "fencepost-run@.service"} {
		text := strings.ReplaceAll(example(t, "systemd/"+name), "/usr/local/bin/", os.Getenv(binariesEnv)+"/")
		units[name] = strings.ReplaceAll(strings.ReplaceAll(text, "User=fencepost\n", ""), "/etc/fencepost/%i.env", "%h/%i.env")
	}
}

func TestGenerationsReplaceEachOtherUnderSystemd(t *testing.T) {
	t.Parallel()
	units := make(map[string]string)
	serverUnits(t, units)
	s := beginSystemd(t, units, "fencepost@1.service", "fencepost@2.service", "fencepost-run@3.service", "fencepost-run@4.service")
	promote := func(generation string) {
		cmd := exec.CommandContext(t.Context(), binary("fencepost"), "promote", "--force", "--generation", generation, "--timeout", "60s",
			"--store", "sqlite:"+filepath.Join(s.dir, "catalog.db"))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	says := func(unit, text string) {
		eventually(t, unit+" says "+text, func() bool { return strings.Contains(s.show(unit, "StatusText"), text) })
	}
	for number := 1; number <= 4; number++ {
		s.generation(t, number)
	}

	s.must("start", "fencepost@1")
	says("fencepost@1", "leads as g1.e1 since ")
	s.must("start", "fencepost@2") // returns when it is ready, before it is promoted
	says("fencepost@2", "generation 2 is ready to be promoted over g1.e1 of ")
	promote("2")
	says("fencepost@2", "leads as g2.e2 since ")
	s.dead("fencepost@1")
	says("fencepost@1", "superseded: held g1.e1, the store has g2.e2")

	// A generation that was superseded before the machine booted.
	s.must("start", "fencepost@1")
	s.dead("fencepost@1")

	s.must("start", "fencepost-run@3")
	says("fencepost-run@3", "generation 3 is ready to be promoted over g2.e2 of ")
	promote("3")
	says("fencepost-run@3", "leads as g3.e3 since ")
	s.must("start", "fencepost-run@4")
	promote("4")
	s.dead("fencepost-run@3")

	s.must("stop", "fencepost-run@4")
	s.dead("fencepost-run@4")
}
