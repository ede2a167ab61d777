package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/examples/indexer/gitindex"
	"github.com/fencepost/fencepost/examples/indexer/registry"
	"github.com/fencepost/fencepost/work"
)

const (
	monitorLook = 100 * time.Millisecond
	monitorSays = time.Second // how many jobs there are, at most so often
)

// thresholds are for a demo of seconds. `fencepost work check` takes them from the
// environment.
func thresholds() work.Thresholds {
	limits := work.Limits{"": 500 * time.Millisecond}
	return work.Thresholds{Stale: limits, Blocked: limits}
}

// read reads the catalog as any process beside the service can.
func (d *demo) read(ctx context.Context, fn func(s *catalog.Reader, st work.Status) error) error {
	return catalog.Snapshot(ctx, d.store, catalog.Config{}, func(head driver.Head, s *catalog.Reader) error {
		st, err := work.Read(s, head, time.Now())
		if err != nil {
			return err
		}
		return fn(s, st)
	})
}

// monitor shows what the jobs do and what a pager is told, from outside of the process
// that runs them: as `fencepost work check` does from cron.
func (d *demo) monitor(ctx context.Context) {
	said, shown, firing := time.Now(), "", map[string]bool{}
	for rest(ctx, monitorLook) == nil {
		err := d.read(ctx, func(_ *catalog.Reader, st work.Status) error {
			for _, a := range work.Check(st, work.Outside{}, thresholds()) {
				if a.Firing != firing[a.Key] {
					d.out.say("  monitor: %s %s: %.150s", a.Key, a.State(), a.Summary)
				}
				firing[a.Key] = a.Firing
			}
			if text := line(st); text != shown && time.Since(said) > monitorSays {
				d.out.say("  monitor: %s", text)
				shown, said = text, time.Now()
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			d.out.say("  monitor: %v", err)
		}
	}
}

// line says in one line what the jobs do.
func line(st work.Status) string {
	var states []string
	for _, s := range work.States() {
		if n := st.States[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	text := "no jobs wait or run"
	if len(states) > 0 {
		text = plural(st.Live, "job") + ": " + strings.Join(states, ", ")
	}
	return text
}

// zombie plays a worker of the generation before that was delayed, and applies its old
// plan now.
func (d *demo) zombie(ctx context.Context) (err error) {
	head, err := catalog.ReadHead(ctx, d.store, catalog.Config{})
	if err != nil {
		return err
	}
	old := lower(head.Claim.Token)
	checkout, err := gitindex.Open(gitindex.Config{Index: d.index, Checkout: filepath.Join(d.dir, "zombie")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, checkout.Close()) }()
	for {
		_, refused := checkout.Sync(ctx, old, "package-1", []byte("an old plan\n"))
		switch {
		case refused == nil:
			return fmt.Errorf("the index took an old plan under %s behind %s", old, head.Claim.Token)
		case strings.Contains(refused.Error(), "refused by git index"):
			d.out.say("a delayed worker applies an old plan under %s: %.150s", old, refused)
			return nil
		}
		if err := rest(ctx, look); err != nil { // a push of the holder's came in between
			return fmt.Errorf("%w: %w", err, refused)
		}
	}
}

// check waits until no job is left, and checks that everything adds up.
func (d *demo) check(ctx context.Context) error {
	begun := time.Now()
	if err := d.settled(ctx); err != nil {
		return err
	}
	d.out.say("every job has ended, %v after the last change", time.Since(begun).Round(time.Millisecond))
	wanted, announced, ids := map[string]string{}, map[string]int{}, []string{}
	err := d.read(ctx, func(s *catalog.Reader, _ work.Status) (err error) {
		if wanted, err = registry.All(s); err != nil {
			return err
		}
		if err := registry.Changes(s, func(id string) bool { ids = append(ids, id); return true }); err != nil {
			return err
		}
		return registry.Feed(s, func(a registry.Announced) bool { announced[a.Change]++; return true })
	})
	if err != nil {
		return err
	}
	has, err := gitindex.Read(ctx, d.index)
	if err != nil {
		return err
	}
	if !maps.Equal(wanted, has) {
		return fmt.Errorf("the index is not equal to the catalog:\n%v\nwant\n%v", has, wanted)
	}
	for _, id := range ids {
		if announced[id] != 1 {
			return fmt.Errorf("change %s is in the feed %d times", id, announced[id])
		}
	}
	syncs, err := d.history(ctx, ids)
	if err != nil {
		return err
	}
	d.out.say("index and catalog are equal: %s of %s, by %s; all of them are in the index, and in the feed once",
		plural(len(ids), "change"), plural(len(wanted), "package"), plural(syncs, "commit"))
	d.out.say("the slowest answer of the web server took %v", d.load.slowest.Round(time.Millisecond))
	return nil
}

// settled waits until no job is left.
func (d *demo) settled(ctx context.Context) error {
	for {
		var st work.Status
		if err := d.read(ctx, func(_ *catalog.Reader, now work.Status) error { st = now; return nil }); err != nil {
			return err
		}
		switch {
		case st.Dead > 0:
			return fmt.Errorf("%s on the dead list", plural(st.Dead, "job"))
		case st.Live == 0:
			for _, a := range work.Firing(work.Check(st, work.Outside{}, thresholds())) {
				return fmt.Errorf("no job is left, and the alert %s fires: %s", a.Key, a.Summary)
			}
			return nil
		}
		if err := rest(ctx, look); err != nil {
			return fmt.Errorf("%w: %s", err, line(st))
		}
	}
}

// history checks what became of each change, as the web server says and as the index
// has it, and that no commit of the index bears a lower token than one before it. It
// returns how many commits there are.
func (d *demo) history(ctx context.Context, ids []string) (int, error) {
	d.load.mu.Lock()
	accepted, wrong := slices.Clone(d.load.accepted), d.load.wrong
	d.load.mu.Unlock()
	if wrong != nil {
		return 0, wrong
	}
	commits, err := gitindex.History(ctx, d.index)
	if err != nil {
		return 0, err
	}
	known := map[string]bool{}
	for i, c := range commits {
		known[c.ID] = true
		if i > 0 && c.Token.Compare(commits[i-1].Token) < 0 {
			return 0, fmt.Errorf("commit %s of %s is behind one of %s", c.ID, c.Token, commits[i-1].Token)
		}
	}
	kept := map[string]bool{}
	for _, id := range ids {
		kept[id] = true
	}
	for _, id := range accepted {
		if !kept[id] {
			return 0, fmt.Errorf("change %s was accepted, and is not in the catalog", id)
		}
	}
	for _, id := range ids {
		if d.checked[id] { // in an earlier round; clients ask again and again
			continue
		}
		d.checked[id] = true
		f, err := d.load.tell(ctx, id)
		if err != nil {
			return 0, err
		}
		if f.Stage != registry.InIndex || !known[f.Commit] {
			return 0, fmt.Errorf("change %s is %s with commit %q: %s", id, f.Stage, f.Commit, f.Error)
		}
	}
	return len(commits) - 1, nil // the first one is empty
}
