package exitcodes

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// NotifySocketEnv names the environment variable in which a service manager,
// such as systemd for a unit of Type=notify, says where it listens.
const NotifySocketEnv = "NOTIFY_SOCKET"

// patience is how long a service manager may leave a message unread. It is a
// hint, for which nobody's work waits.
const patience = 100 * time.Millisecond

// Notify tells the service manager how this process stands: assignments in the
// words of sd_notify(3), such as "READY=1" and "STATUS=leads". They go as one
// message, each in one line. It does nothing where NOTIFY_SOCKET is not set.
//
// [Main] tells by itself that the process is stopping, and why. Package leader
// tells when it is ready. A program that uses neither tells it here.
func Notify(assignments ...string) error {
	name := os.Getenv(NotifySocketEnv)
	if name == "" {
		return nil
	}
	// Package net writes @ for the first byte of an abstract address, as
	// NOTIFY_SOCKET does.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notifying the service manager: %w", err)
	}
	defer conn.Close()
	lines := make([]string, len(assignments))
	for i, a := range assignments {
		lines[i] = OneLine(a) // a second line would be an assignment of its own
	}
	_ = conn.SetWriteDeadline(time.Now().Add(patience)) // fails only for a closed connection
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notifying the service manager: %w", err)
	}
	return nil
}

// notices run one after the other, beside the goroutine that asks for them, since
// a service manager may have stopped reading. Go and Wait are for one goroutine at
// a time.
type notices struct{ last chan struct{} }

// Go runs notice once those before it are done.
func (n *notices) Go(notice func()) {
	before, done := n.last, make(chan struct{})
	n.last = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		notice()
	}()
}

// Wait returns once all notices are done.
func (n *notices) Wait() {
	if n.last != nil {
		<-n.last
	}
}

// notifyStopping tells that the process has grace left to end. The service
// manager waits for that long even if its own time-out is shorter.
func notifyStopping(why error, grace time.Duration) {
	longer := grace + time.Second // and a moment for the exit itself
	_ = Notify("STOPPING=1", fmt.Sprintf("STATUS=stopping: %v", why),
		fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", longer.Microseconds())) // a hint, as all of these
}

// notify tells how the process ends. Of one that ends with 0 before it was
// ready a service manager would think that it had failed, and start it again;
// so it was ready, for this. The last word about that in a message counts,
// hence two of them.
func (r Record) notify() {
	if r.Code == Success {
		_ = Notify("READY=1")
	}
	_ = Notify("STOPPING=1", "STATUS="+r.summary())
}
