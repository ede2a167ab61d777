// Package process is what the examples of guards share: it runs their shops, which are
// processes that are stopped and continued, speak in lines of JSON, and are told what to
// do by lines.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/fencepost/fencepost/fence"
)

// An Event is what a process says, as a line of JSON on its standard output.
type Event struct {
	What  string         `json:"what"` // leading, read, sold, refused
	Token fence.Token    `json:"token"`
	Left  map[string]int `json:"left"` // in each store
	Text  string         `json:"text,omitempty"`
}

// Say says e. A process that can't has lost its example, and panics.
func Say(e Event) {
	text, err := json.Marshal(e)
	if err == nil {
		_, err = fmt.Println(string(text))
	}
	if err != nil {
		panic(err)
	}
}

// Listen sends the lines of the standard input, until that ends.
func Listen(commands chan<- string) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		commands <- in.Text()
	}
}

// A Process is this program once more, in another part.
type Process struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	events *bufio.Scanner
}

// Start starts a process with further variables in its environment. It ends with ctx at
// the latest.
func Start(ctx context.Context, stderr io.Writer, name string, env ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{name: name, cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.events = bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// Tell sends a command.
func (p *Process) Tell(command string) error {
	_, err := fmt.Fprintln(p.in, command)
	return err
}

// Expect returns the next event, which must be one of some kinds.
func (p *Process) Expect(kinds ...string) (e Event, err error) {
	if !p.events.Scan() {
		return e, errors.Join(fmt.Errorf("%s ended before it was %v", p.name, kinds), p.events.Err())
	}
	if err := json.Unmarshal(p.events.Bytes(), &e); err != nil {
		return e, err
	}
	for _, kind := range kinds {
		if e.What == kind {
			return e, nil
		}
	}
	return e, fmt.Errorf("%s says %q (%s), want %v", p.name, e.What, e.Text, kinds)
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// End waits for the end of the process and returns its exit status.
func (p *Process) End() (status int, err error) {
	_ = p.in.Close() // what it has not read is of no use any more
	err = p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Kill ends a process that may be stopped, if it runs.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // one that has ended is what is wanted
	_ = p.cmd.Wait()
}
