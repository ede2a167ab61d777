package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// takeover is the script of the first round.
func (r *round) takeover(ctx context.Context) {
	if !r.blueLeads(ctx) || !r.greenIsReady(ctx) || !r.promote(ctx) {
		return
	}
	r.blueEnds(ctx)
	r.keepWriting(ctx)
	if r.kill(ctx) && r.comesBack(ctx) {
		r.step(ctx, "green has the same data", r.sameData)
		r.keepWriting(ctx)
	}
}

// stopped is the script of the second round.
func (r *round) stopped(ctx context.Context) {
	if !r.blueLeads(ctx) || !r.greenIsReady(ctx) || !r.step(ctx, "blue is stopped by SIGSTOP", r.stopBlue) {
		return
	}
	promoted := r.promote(ctx)
	r.keepWriting(ctx)
	r.step(ctx, "blue is continued by SIGCONT, with writes waiting in its connections", func(context.Context) error {
		r.mark('C')
		return r.blue.signal(syscall.SIGCONT)
	})
	if promoted {
		r.blueEnds(ctx)
		r.keepWriting(ctx)
	}
}

// blueLeads starts blue, which nobody needs to promote on an empty catalog, and
// the clients.
func (r *round) blueLeads(ctx context.Context) bool {
	return r.step(ctx, "blue leads", func(ctx context.Context) (err error) {
		if r.blue, err = r.start("blue", blueGeneration); err != nil {
			return err
		}
		ctx, cancel := r.blue.whileRunning(ctx)
		defer cancel()
		if err := await(ctx, func() error { return r.blue.answers(ctx, "/readyz/leader", http.StatusOK) }); err != nil {
			return err
		}
		_, err = r.blue.findChild(ctx)
		return err
	}) && r.step(ctx, fmt.Sprintf("%d clients write to the stable address, and one to blue's own", r.opts.clients), func(ctx context.Context) error {
		for i := range r.opts.clients {
			r.load.add(fmt.Sprintf("client-%d", i+1), r.proxy.address(), true)
		}
		r.load.add("client-of-blue", r.blue.listen, false)
		return r.writesUnder(ctx, fence.Token{Generation: blueGeneration})
	}) && rest(ctx, r.opts.load)
}

// writesUnder waits until a write was acknowledged at the stable address under
// a token above the given one.
func (r *round) writesUnder(ctx context.Context, above fence.Token) error {
	return await(ctx, func() error {
		if _, newest := r.ledger.progress(); newest.Compare(above) <= 0 {
			return fmt.Errorf("no write was acknowledged under a token above %v, the newest is of %v", above, newest)
		}
		return nil
	})
}

func (r *round) greenIsReady(ctx context.Context) bool {
	return r.step(ctx, "green has read everything and is ready", func(ctx context.Context) (err error) {
		if r.green, err = r.start("green", greenGeneration); err != nil {
			return err
		}
		ctx, cancel := r.green.whileRunning(ctx)
		defer cancel()
		return await(ctx, func() error { return r.green.answers(ctx, "/readyz/standby", http.StatusOK) })
	}) && rest(ctx, r.opts.load/3)
}

// promote runs the command of that name, and waits until green serves.
func (r *round) promote(ctx context.Context) bool {
	acks, _ := r.ledger.progress()
	return r.step(ctx, fmt.Sprintf("fencepost promote --generation %d, after %d acknowledged writes", greenGeneration, acks), func(ctx context.Context) error {
		r.promotedAt = r.mark('P')
		token, err := r.runPromote(ctx)
		if err != nil {
			return err
		}
		r.progress.say("  the catalog bears token %v", token)
		return nil
	}) && r.step(ctx, "green serves", func(ctx context.Context) error {
		return r.writesUnder(ctx, fence.Token{Generation: greenGeneration})
	})
}

func (r *round) runPromote(ctx context.Context) (fence.Token, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, r.binaries.fencepost, "promote",
		"--generation", strconv.Itoa(greenGeneration), "--json", "--by", "bluegreen", "--timeout", r.opts.patience.String())
	cmd.Env, cmd.Stdout, cmd.Stderr = childEnviron(r.url), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fence.Token{}, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var answer struct {
		Leading bool        `json:"leading"`
		Token   fence.Token `json:"token"`
	}
	if err := json.Unmarshal([]byte(stdout.String()), &answer); err != nil {
		return fence.Token{}, fmt.Errorf("the answer of promote: %w", err)
	}
	if !answer.Leading {
		return fence.Token{}, errors.New("promote says that green does not lead")
	}
	return answer.Token, nil
}

// blueEnds waits until blue's server has ended with 0 and its entrypoint parks.
func (r *round) blueEnds(ctx context.Context) bool {
	return r.step(ctx, "blue has exited 0, and its entrypoint is parked: alive, never ready", func(ctx context.Context) error {
		err := await(ctx, func() error {
			s, err := r.blue.parked(ctx)
			if err == nil {
				r.parking = &s
			}
			return err
		})
		if err == nil && r.parking.Record.Code != exitcodes.Success {
			err = fmt.Errorf("blue exited %d: %s", r.parking.Record.Code, r.parking.Record.Reason)
		}
		return err
	})
}

// keepWriting lets the clients write for a while.
func (r *round) keepWriting(ctx context.Context) { rest(ctx, r.opts.load) }

// kill kills green's server.
func (r *round) kill(ctx context.Context) bool {
	return r.step(ctx, "green is killed by SIGKILL", func(ctx context.Context) error {
		if _, err := r.green.findChild(ctx); err != nil {
			return err
		}
		r.killAt = r.mark('K')
		return r.green.signal(syscall.SIGKILL)
	})
}

// comesBack waits until green's next process serves. That takes a few seconds
// by design: it may claim only after the dead one was silent for long enough.
func (r *round) comesBack(ctx context.Context) bool {
	_, before := r.ledger.progress()
	said := time.Now()
	return r.step(ctx, "green is back, under the next epoch", func(ctx context.Context) error {
		err := await(ctx, func() error {
			if time.Since(said) > time.Second {
				said = time.Now()
				what, _ := r.green.watch.now()
				r.progress.say("  ... green is %s; a standby claims after 7.9 s without a sign of life of %v", what, before)
			}
			if _, newest := r.ledger.progress(); newest.Compare(before) <= 0 {
				return fmt.Errorf("no write was acknowledged since, under a token above %v", before)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if _, after := r.ledger.progress(); after.Generation != before.Generation || after.Epoch != before.Epoch+1 {
			return fmt.Errorf("it serves under %v, want the next epoch after %v", after, before)
		}
		return nil
	})
}

// sampleSize is how many keys sameData reads.
const sampleSize = 300

// sameData reads keys that were acknowledged before green was killed.
func (r *round) sameData(ctx context.Context) error {
	var keys []string
	for _, w := range r.ledger.all() {
		if w.fate == acknowledged && w.at.Before(r.killAt) {
			keys = append(keys, w.key)
		}
	}
	c, err := dial(ctx, r.proxy.address())
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; i < len(keys); i += max(1, len(keys)/sampleSize) {
		value, err := c.do(r.opts.patience, "GET", keys[i])
		if err != nil || value != valueOf(keys[i]) {
			return fmt.Errorf("%s is %q, want %q: %w", keys[i], value, valueOf(keys[i]), err)
		}
	}
	return nil
}
