package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// A process is a shop that runs.
type process struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	events *bufio.Scanner
}

// start starts a shop of a generation. It ends with ctx at the latest.
func start(ctx context.Context, stderr io.Writer, name string, generation int, dsn, table string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), ShopVar+"="+name, storeVar+"="+dsn, tableVar+"="+table, generationVar+"="+strconv.Itoa(generation))
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

// tell sends a command.
func (p *process) tell(command string) error {
	_, err := fmt.Fprintln(p.in, command)
	return err
}

// expect returns the next event, which must be one of some kinds.
func (p *process) expect(kinds ...string) (e event, err error) {
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

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// end waits for the end of the process and returns its exit status.
func (p *process) end() (status int, err error) {
	_ = p.in.Close() // what it has not read is of no use any more
	err = p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// kill ends a process that may be stopped, if it runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // one that has ended is what is wanted
	_ = p.cmd.Wait()
}
