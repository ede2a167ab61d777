//go:build unix

package lead

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/internal/clock"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/internal/spool"
)

// A message to the keeper is a line: the id of a process group, and for how many
// milliseconds from now it may go on without a further message. The end of the
// messages is the end of the group, and 0 stands for none.
const message = "%d %d\n"

// longestLook is how often the keeper looks at the clock, which goes on while the
// host is suspended and its timers don't.
const longestLook = 250 * time.Millisecond

// Keep is the keeper's whole life: it reads messages and kills the group that was
// named last when its time is over, or when they end, which the end of their writer
// by whatever means brings about.
func Keep(messages io.Reader, stderr io.Writer) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	k := keeping{lines: spool.New(waitingLines, func(line string, _ int) { _, _ = fmt.Fprintln(stderr, line) })}
	defer k.lines.Flush(time.Second) // if it is read
	heard := make(chan kept)
	go func() {
		defer close(heard)
		for lines := bufio.NewScanner(messages); lines.Scan(); {
			var next kept
			var ms int64
			if _, err := fmt.Sscanf(lines.Text()+"\n", message, &next.group, &ms); err != nil {
				return // nobody else writes here: what can't be read is the end
			}
			next.until = clock.Boot() + time.Duration(ms)*time.Millisecond
			heard <- next
		}
	}()
	for {
		select {
		case next, ok := <-heard:
			if !ok {
				k.kill("the process that holds the token has ended")
				return
			}
			k.kept = next
		case <-k.next():
			k.look()
		}
	}
}

// A kept is a group, and by when a further message must have come.
type kept struct {
	group int // 0: none
	until time.Duration
}

type keeping struct {
	kept
	lines *spool.Queue[string] // for people, who may have stopped reading
}

const waitingLines = 16

func (k *keeping) next() <-chan time.Time {
	if k.group == 0 {
		return nil
	}
	return time.After(min(longestLook, max(0, k.until-clock.Boot())))
}

func (k *keeping) look() {
	if k.group != 0 && clock.Boot() >= k.until {
		k.kill("the lease has expired, and the process that holds the token does not run")
	}
}

func (k *keeping) kill(why string) {
	if k.group != 0 && syscall.Kill(-k.group, syscall.SIGKILL) == nil {
		k.lines.Put(fmt.Sprintf("fencepost lead: %s: SIGKILL for the command's group %d", why, k.group))
	}
	k.group = 0
}

// A keeper is the keeper as this process sees it. Its methods are for one goroutine
// at a time.
type keeper struct {
	h     *holder
	group *process.Group // nil: none runs
	pipe  *os.File
	until time.Duration // when what was watched last is killed
}

// watch has the keeper kill a group unless it is told otherwise within left. One
// that is gone is replaced.
func (k *keeper) watch(pid int, left time.Duration) {
	left = left.Truncate(time.Millisecond)
	k.until = clock.Boot() + left // the keeper, which counts from when it is told, never kills before
	k.send(pid, left)
}

func (k *keeper) send(pid int, left time.Duration) {
	line := fmt.Sprintf(message, pid, left.Milliseconds())
	if k.group != nil {
		_ = k.pipe.SetWriteDeadline(time.Now().Add(time.Second)) // a pipe takes one
		if _, err := k.pipe.WriteString(line); err == nil {
			return
		}
		k.end()
	}
	k.start(line)
}

// late reports whether the keeper has killed what it watches, for want of a message
// in time, or is about to.
func (k *keeper) late() bool { return clock.Boot() >= k.until }

// rest has the keeper watch nothing.
func (k *keeper) rest() {
	if k.group != nil {
		k.send(0, 0)
	}
}

// start starts a keeper, for which its first message is there already: this process
// may be killed at any moment.
func (k *keeper) start(line string) {
	r, w, err := os.Pipe()
	if err == nil {
		defer r.Close()
		_, err = w.WriteString(line)
	}
	if err == nil {
		p := k.h.cfg.Keeper
		k.group, err = k.h.reaper.Start(process.Spec{
			Command: p.Args, Path: p.Path, Environ: k.h.cfg.Environ, Files: [3]*os.File{r, k.h.cfg.Stderr, k.h.cfg.Stderr},
			KillGrace: k.h.cfg.KillGrace, Tell: k.h.tell,
		})
	}
	if err == nil {
		k.pipe = w
		return
	}
	k.group = nil
	if w != nil {
		_ = w.Close()
	}
	k.h.log.Error("no second process watches over the command's group, should this one be killed", "err", err)
}

// end ends the keeper, which kills what it watches.
func (k *keeper) end() {
	if k.group == nil {
		return
	}
	_ = k.pipe.Close() // it is the end of the messages
	select {
	case <-k.group.Exited():
	case <-time.After(time.Second):
		k.group.Kill()
		k.group.Await()
	}
	k.group = nil
}
