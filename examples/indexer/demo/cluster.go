package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

const (
	lease = 5 * time.Second      // a death is proven sooner; a busy machine is not taken for one
	look  = 5 * time.Millisecond // between two looks at the head
)

// A cluster is the processes of the service: of the generation that leads, one that
// leads and one standby.
type cluster struct {
	*demo
	generation uint64
	members    []*member
}

// A member is one process.
type member struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
	err  error         // then: nil if with status 0
}

// command is one of this program's.
func (c *cluster) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = c.logs
	return cmd, nil
}

// init makes the index.
func (c *cluster) init(ctx context.Context) error {
	cmd, err := c.command(ctx, "init", "-index", c.index, "-store", c.url)
	if err != nil {
		return err
	}
	cmd.Stderr = nil
	if _, err := cmd.Output(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("indexer init: %w: %s", err, exit.Stderr)
		}
		return err
	}
	return nil
}

// launch starts a process of the current generation. One with the name of another that
// has ended uses its checkout.
func (c *cluster) launch(name string) (*member, error) {
	cmd, err := c.command(context.Background(), "serve", "-store", c.url, "-index", c.index, "-generation", strconv.FormatUint(c.generation, 10),
		"-name", name, "-checkout", filepath.Join(c.dir, name), "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-lease", lease.String())
	if err != nil {
		return nil, err
	}
	m := &member{name: name, cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.err = cmd.Wait()
		close(m.done)
	}()
	c.members = append(c.members, m)
	return m, nil
}

// leader returns the address of the web server that leads.
func (c *cluster) leader(ctx context.Context) (string, error) {
	head, err := catalog.ReadHead(ctx, c.store, catalog.Config{})
	return head.Claim.Holder.Address, err
}

// start starts a generation: a process, and a standby.
func (c *cluster) start(ctx context.Context) error {
	names := fmt.Sprintf("generation-%d-", c.generation)
	first, err := c.launch(names + "a")
	if err != nil {
		return err
	}
	g := generation.Generation(c.generation)
	// The demo numbers its generations itself, and does not wait until this one is ready.
	if _, err := leader.Promote(ctx, c.store, catalog.Config{}, g, leader.PromoteOptions{By: "the demo", Force: true}); err != nil {
		return err
	}
	if _, err := c.wait(ctx, first, func(t fence.Token, _ fence.Holder) bool { return t.Generation == g }); err != nil {
		return err
	}
	_, err = c.launch(names + "b")
	return err
}

// wait waits until the head says what it should. A member that ends meanwhile is an
// error; it may be nil.
func (c *cluster) wait(ctx context.Context, m *member, want func(fence.Token, fence.Holder) bool) (fence.Token, error) {
	for {
		head, err := catalog.ReadHead(ctx, c.store, catalog.Config{})
		if err != nil {
			return fence.Token{}, err
		}
		if want(head.Claim.Token, head.Claim.Holder) {
			return head.Claim.Token, nil
		}
		if m != nil {
			select {
			case <-m.done:
				return fence.Token{}, fmt.Errorf("%s has ended: %w", m.name, m.err)
			default:
			}
		}
		if err := rest(ctx, look); err != nil {
			return fence.Token{}, err
		}
	}
}

// replace promotes the next generation, and waits for the end of the one before. Each
// of its processes must end with 0.
func (c *cluster) replace(ctx context.Context) error {
	old := c.members
	c.members = nil
	c.generation++
	err := c.start(ctx)
	for _, m := range old {
		if err != nil {
			m.kill()
			continue
		}
		select {
		case <-m.done:
			if m.err != nil {
				err = fmt.Errorf("%s was superseded, and did not end with 0: %w", m.name, m.err)
			}
		case <-ctx.Done():
			m.kill()
			err = fmt.Errorf("%s was superseded, and does not end: %w", m.name, context.Cause(ctx))
		}
	}
	return err
}

// kill kills the process that leads, waits until another one does, and starts it anew.
func (c *cluster) kill(ctx context.Context) (now fence.Token, took time.Duration, err error) {
	head, err := catalog.ReadHead(ctx, c.store, catalog.Config{})
	if err != nil {
		return now, 0, err
	}
	for i, m := range c.members {
		if m.name == head.Claim.Holder.Name {
			c.members = append(c.members[:i:i], c.members[i+1:]...)
			begun := time.Now()
			m.kill()
			now, err = c.wait(ctx, nil, func(t fence.Token, _ fence.Holder) bool { return head.Claim.Token.Compare(t) < 0 })
			took = time.Since(begun)
			if err == nil {
				_, err = c.launch(m.name)
			}
			return now, took, err
		}
	}
	return now, 0, fmt.Errorf("%s leads, and is none of the demo's processes", head.Claim.Holder.Name)
}

func (m *member) kill() {
	_ = m.cmd.Process.Signal(syscall.SIGKILL) // one that has ended is what is wanted
	<-m.done
}

// end ends what is left, and joins it.
func (c *cluster) end() {
	for _, m := range c.members {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, m := range c.members {
		select {
		case <-m.done:
		case <-time.After(10 * time.Second):
			m.kill()
		}
	}
	c.members = nil
}
