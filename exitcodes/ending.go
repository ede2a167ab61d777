package exitcodes

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fencepost/fencepost/internal/stacks"
)

// An ending is all that is left to say of a process.
type ending struct {
	record Record
	remark string // what happened besides; may be empty
	stacks []byte // of all goroutines; may be empty
}

func endingOf(err error, decided voice) ending {
	e := ending{record: recordOf(err, decided)}
	var caught interface{ Stacks() []byte }
	switch {
	case errors.As(err, &caught):
		e.show(caught.Stacks())
	case decided.disposition == Panic:
		e.show(stacks.All(""))
	}
	return e
}

// show has the stacks printed, and as much of them put into the record as it has room
// for.
func (e *ending) show(all []byte) { e.stacks, e.record.Stacks = all, string(all) }

// finish says how the process ends and returns the code for it, once that is
// said, its time is over, or a further signal asks for a stop.
func (p *program) finish(e ending, stderr io.Writer, path string, signals <-chan os.Signal) Code {
	within := p.lastWords()
	said := make(chan struct{})
	go func() {
		defer close(said)
		p.conclude(e, stderr, path, within)
	}()
	late := time.After(within)
	for {
		select {
		case <-said:
			return e.record.Code
		case <-late:
			return e.record.Code
		case sig := <-signals:
			if sig != syscall.SIGHUP && p.again() {
				return e.record.Code
			}
		}
	}
}

// conclude says on stderr why the process ends, leaves the record at path, and
// tells the service manager. None of them waits for another: each may have
// stopped reading.
func (p *program) conclude(e ending, stderr io.Writer, path string, within time.Duration) {
	e.record.Name = p.opts.Name
	if e.remark != "" {
		e.record.Reason = strings.TrimLeft(e.record.Reason+"; "+e.remark, "; ")
	}
	// A reader of stderr that is gone must not turn this ending into a death
	// by SIGPIPE, which a supervisor would answer with a restart.
	signal.Ignore(syscall.SIGPIPE)
	written, late := make(chan error, 1), time.After(within/2)
	go func() { written <- e.leaveRecord(path) }()
	p.telling.Go(e.record.notify)
	defer p.telling.Wait()
	p.opts.Flush(within / 2)
	select {
	case err := <-written:
		if err != nil {
			say(stderr, "%s: %v", p.opts.Name, err)
		}
	case <-late: // a disk hangs
		say(stderr, "%s: the ending record is not written after %v", p.opts.Name, within/2)
	}
	if len(e.stacks) > 0 {
		_, _ = stderr.Write(append(bytes.TrimRight(e.stacks, "\n"), '\n')) // as for say
	}
	say(stderr, "%s: %s", p.opts.Name, e.record.summary())
}

func (e ending) leaveRecord(path string) error {
	if path == "" {
		return nil
	}
	return WriteRecord(path, e.record)
}

// say writes one line to stderr. When that fails there is nobody left to tell.
func say(stderr io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintln(stderr, OneLine(fmt.Sprintf(format, args...)))
}

// summary is the ending in one line.
func (r Record) summary() string {
	reason := cmp.Or(OneLine(r.Reason), "done")
	if r.Disposition == None.String() {
		return fmt.Sprintf("%s (exit %d)", reason, r.Code)
	}
	return fmt.Sprintf("%s (%s, exit %d)", reason, r.Disposition, r.Code)
}

// OneLine returns text with its lines joined by semicolons, for logs in which
// an error is one line. What a terminal would not print but obey, such as an
// escape sequence, and bytes that are no UTF-8 are written as Go writes them in a
// string: \x1b. Tabs stay.
func OneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, printable(line))
		}
	}
	return strings.Join(lines, "; ")
}

func printable(line string) string {
	var b strings.Builder
	for rest := line; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			b.WriteString(rest[:size])
		default:
			b.WriteString(strings.Trim(strconv.Quote(rest[:size]), `"`))
		}
		rest = rest[size:]
	}
	return b.String()
}
