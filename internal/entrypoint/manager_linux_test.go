package entrypoint

import (
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// A listener is a socket such as systemd's.
type listener struct {
	t     *testing.T
	conn  *net.UnixConn
	heard []string
}

// managed makes runs that begin later in the test find a service manager.
func managed(t *testing.T) *listener {
	t.Helper()
	name := "@fencepost-test-" + rand.Text()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv(exitcodes.NotifySocketEnv, name)
	return &listener{t: t, conn: conn}
}

// until reads up to a message that begins like that, and returns all of them.
func (l *listener) until(beginning string) []string {
	l.t.Helper()
	buf := make([]byte, 8192)
	for {
		require.NoError(l.t, l.conn.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err := l.conn.Read(buf)
		require.NoError(l.t, err, "%q did not come after %q", beginning, l.heard)
		l.heard = append(l.heard, string(buf[:n]))
		if strings.HasPrefix(string(buf[:n]), beginning) {
			return l.heard
		}
	}
}

func TestTheServiceManagerHearsOfTheChildWhatIsSoOfTheService(t *testing.T) {
	l := managed(t)
	r := begin(t, Config{}, "tell=166", "superseded=")
	heard := l.until("STATUS=the child ends")
	require.Equal(t, []string{"READY=1", "STATUS=the child leads", "STATUS=the child ends"}, heard,
		"neither what a helper of the child's says, nor STOPPING=1 and MAINPID of the child")
	r.release()
	l.until("STATUS=child ")
	require.Contains(t, l.heard[3], "exited 166: restarting at once")
	l.until("STATUS=parked: superseded: held g7.e41, the store has g8.e42 of green")
	r.signal(syscall.SIGTERM)
	l.until("STOPPING=1\nSTATUS=stopping: signal terminated\nEXTEND_TIMEOUT_USEC=36000000")
	l.until("STOPPING=1")
	r.ends(0)
	require.Equal(t, 1, count(l.heard, "READY=1"))
	require.Equal(t, 2, count(l.heard, "STOPPING=1"))
}

// A child of these speaks as often as it is started, and ends once the test has
// heard it.
func (l *listener) speaks(r *running, starts int) {
	l.t.Helper()
	for n := range starts {
		l.until(fmt.Sprintf("STATUS=start %d", n+1))
		r.release()
	}
}

func TestEqualsThatFenceEachOtherWhileTheyAreHealthyRunOutOfTheirBudget(t *testing.T) {
	l := managed(t)
	r := begin(t, Config{HealthyAfter: 1, HaltBudget: 2}, "ready=166", "ready=166", "ready=166", "ready=166", "exit=0")
	l.speaks(r, 4)
	r.ends(0)
	lines := r.read(r.stderr)
	require.Equal(t, 2, strings.Count(lines, "exited 166: restarting at once"), lines)
	require.Regexp(t, `exited 166: restarting in \d+ms: 3 halts within 10m, after 2 restarts\n`, lines)
	require.Regexp(t, `exited 166: restarting in \d+ms: 4 halts within 10m, after 3 restarts\n`, lines)
}

func TestAChildThatSpeaksAndIsNeverReadyWasNotHealthyByBeingUp(t *testing.T) {
	l := managed(t)
	r := begin(t, Config{HealthyAfter: 1}, "unready=166", "unready=166", "exit=0")
	l.speaks(r, 2)
	r.ends(0)
	require.Regexp(t, `exited 166: restarting in \d+ms, after 1 restart\n`, r.read(r.stderr))

	// It says no more than how it ends.
	r = begin(t, Config{HealthyAfter: 1}, "fenced", "fenced", "exit=0")
	r.ends(0)
	require.Equal(t, 2, strings.Count(r.read(r.stderr), "restarting at once"))
}

func TestAChildFindsSomebodyWhoListensWithoutAServiceManagerToo(t *testing.T) {
	t.Setenv(exitcodes.NotifySocketEnv, "")
	r := begin(t, Config{Command: []string{"sh", "-c", `[ -n "$NOTIFY_SOCKET" ] && exit 64`}})
	r.ends(64)
	require.NotContains(t, r.read(r.stderr), "service manager")
}

func TestOfAMessageOnlyWhatIsSaidBeforeStoppingCounts(t *testing.T) {
	var c child
	c.heed([]string{"WATCHDOG=1"})
	require.True(t, c.spoke)
	require.Zero(t, c.ready)
	c.heed([]string{"STATUS=x", "READY=1"})
	first := c.ready
	require.NotZero(t, first)
	c.heed([]string{"READY=1"})
	require.Equal(t, first, c.ready)

	c = child{}
	c.heed([]string{"STOPPING=1", "STATUS=stopping"})
	c.heed([]string{"READY=1"})
	c.heed([]string{"STATUS=draining"})
	require.Equal(t, child{stopping: true}, c)
}

func count(all []string, beginning string) (n int) {
	for _, one := range all {
		if strings.HasPrefix(one, beginning) {
			n++
		}
	}
	return n
}

func TestAServiceThatIsSupersededBeforeItIsReadyWasReadyAllTheSame(t *testing.T) {
	silent := []string{"sh", "-c", // it says nothing to the service manager
		`echo '{"disposition":"graceful exit","code":0,"superseded":true,"reason":"superseded"}' > "$FENCEPOST_TERMINATION_LOG"`}
	l := managed(t)
	r := begin(t, Config{Command: silent, OnSuperseded: End})
	r.ends(0)
	require.Equal(t, "READY=1", before(t, l.until("STOPPING=1")))

	l = managed(t)
	r = begin(t, Config{Command: silent})
	require.Equal(t, "STATUS=parked: superseded", before(t, l.until("READY=1")), "ready while it is parked, and not only at its end")
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

// before returns the last message but one.
func before(t *testing.T, heard []string) string {
	t.Helper()
	require.Greater(t, len(heard), 1, heard)
	return heard[len(heard)-2]
}

func TestAServiceThatFailsBeforeItIsReadyIsNotCalledReady(t *testing.T) {
	l := managed(t)
	r := begin(t, Config{}, "exit=2", "exit=64")
	r.ends(64)
	heard := l.until("STOPPING=1")
	require.Equal(t, 0, count(heard, "READY=1"), heard)
	require.Equal(t, 2, count(heard, "STATUS=child "), heard)
	require.Contains(t, before(t, heard), "exited 64: done, after 1 restart (exit 64)")
}

func TestWhereTheChildCannotBeHeardItsStartIsReadiness(t *testing.T) {
	l := managed(t)
	deaf := &supervisor{cfg: defaults()}
	deaf.manager.notices = deaf.newNotices()
	deaf.sayStarted()
	deaf.sayStarted()
	deaf.sayEnded(exitcodes.Failure)
	require.Equal(t, []string{"READY=1", "STOPPING=1"}, l.until("STOPPING=1"))
}

func TestAServiceManagerThatIsGoneIsSaidOnce(t *testing.T) {
	t.Setenv(exitcodes.NotifySocketEnv, filepath.Join(t.TempDir(), "nobody"))
	r := begin(t, Config{}, "exit=1", "exit=1", "exit=0")
	r.ends(0)
	require.Equal(t, 1, strings.Count(r.read(r.stderr), "notifying the service manager: "))
}
