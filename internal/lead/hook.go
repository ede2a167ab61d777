//go:build unix

package lead

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fencepost/fencepost/internal/process"
)

// hook runs a hook to its end, by force when ctx ends or its time is over. What
// becomes of it is logged, and changes nothing else.
func (t *term) hook(ctx context.Context, name, line string, timeout time.Duration) {
	if line == "" {
		return
	}
	began := time.Now()
	bounded, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it was not done within %v", timeout))
	defer cancel()
	if err := t.shell(bounded, name, line, t.env); err != nil {
		t.log.Warn("a hook failed, and nothing waits for it", "hook", name, "err", err)
		return
	}
	t.log.Info("a hook is done", "hook", name, "took", time.Since(began).Round(time.Millisecond))
}

// prepare asks whether the command could serve.
func (h *holder) prepare(ctx context.Context) error {
	bounded, cancel := context.WithTimeoutCause(ctx, h.cfg.HookTimeout, fmt.Errorf("it was not done within %v", h.cfg.HookTimeout))
	defer cancel()
	if err := h.shell(bounded, "prepare", h.cfg.Prepare, process.With(h.cfg.Environ, h.cfg.withoutToken())); err != nil {
		return fmt.Errorf("the hook prepare: %w", err)
	}
	return nil
}

// shell runs a line by /bin/sh, in a process group of its own, which ctx ends by
// SIGKILL.
func (h *holder) shell(ctx context.Context, name, line string, env []string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	g, err := h.reaper.Start(process.Spec{
		Command: []string{"/bin/sh", "-c", line}, Environ: process.With(env, map[string]string{"FENCEPOST_HOOK": name}),
		Files:     [3]*os.File{null, h.cfg.Stderr, h.cfg.Stderr}, // standard output is the command's
		StopGrace: h.cfg.KillGrace, KillGrace: h.cfg.KillGrace, DieWithParent: true, Tell: h.tell,
	})
	if err != nil {
		return err
	}
	select {
	case <-g.Exited():
	case <-ctx.Done():
	}
	g.Look()
	g.Kill() // what it leaves in its group, too
	g.Await()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.Code() != 0:
		return fmt.Errorf("it ended with status %d", g.Code())
	}
	return nil
}
