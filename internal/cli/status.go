package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show who holds the token, since when, and what is promoted",
		Long: `Status shows the token and its holder, how long the log is, the promotion that
is asked for, the holder's last heartbeat, what the store was found to have lost,
until somebody has dealt with that, and the servers that keep the store: for
PostgreSQL every host of the URL, with its role, timeline and system identifier,
or why it can't be reached. It writes nothing and needs no token. A catalog that
nobody has claimed yet is no error.`,
		Example: `  fencepost status --store sqlite:/var/lib/app/catalog.db
  fencepost status --json | jq -r .token`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error { return a.withStore(ctx, a.status) }),
	}
}

func (a *app) status(ctx context.Context, store driver.Store) error {
	var s status
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		s, err = readStatus(ctx, store, a.config(a.timeout))
		return err
	})
	if err != nil {
		return err
	}
	return a.show(s, func(w io.Writer) error { return s.print(w, time.Now()) })
}

// A status is what a catalog's head and board say. What nobody wrote yet is
// null in JSON.
type status struct {
	Store       string                  `json:"store"`
	Token       *fence.Token            `json:"token"`
	Generation  generation.Generation   `json:"generation"`
	Epoch       epoch.Epoch             `json:"epoch"`
	Holder      *fence.Holder           `json:"holder"`
	Claim       *driver.ID              `json:"claim"`
	Reason      string                  `json:"reason"`
	Revision    uint64                  `json:"revision"`
	Commit      *driver.ID              `json:"commit"`
	DataVersion uint64                  `json:"data_version"`
	ReadableBy  uint64                  `json:"readable_by"`
	Promotion   *promotion              `json:"promotion"`
	Aborted     []generation.Generation `json:"aborted_generations"` // above the one that leads
	Heartbeat   *heartbeat              `json:"heartbeat"`
	Allocated   generation.Generation   `json:"allocated_generation"`
	Hosts       []driver.Host           `json:"hosts"`  // that keep the store
	Losses      []catalog.Loss          `json:"losses"` // that nobody has dealt with
}

// A promotion is the intent that one generation shall lead.
type promotion struct {
	Generation generation.Generation `json:"generation"`
	At         time.Time             `json:"at"`
	By         string                `json:"by"`
	Reason     string                `json:"reason"`
}

func promotionOf(i leader.Intent) *promotion {
	if i.Generation == generation.None {
		return nil
	}
	return &promotion{Generation: i.Generation, At: i.At, By: i.By, Reason: i.Reason()}
}

// abortedAbove returns the generations that were given up and could lead
// otherwise, in order.
func abortedAbove(i leader.Intent, head driver.Head) []generation.Generation {
	all := []generation.Generation{}
	for _, g := range slices.Sorted(slices.Values(i.Aborted)) {
		if g > head.Claim.Token.Generation {
			all = append(all, g)
		}
	}
	return all
}

// A heartbeat is the last sign of life of a holder.
type heartbeat struct {
	At       time.Time `json:"at"`
	Age      float64   `json:"age_seconds"`
	Sequence uint64    `json:"seq"`
	Admin    string    `json:"admin"`
	Claim    driver.ID `json:"claim"`
	Current  bool      `json:"current"` // of the one who holds the token now
}

func heartbeatOf(b leader.Beat, head driver.Head, now time.Time) *heartbeat {
	if b.At.IsZero() {
		return nil
	}
	return &heartbeat{
		At: b.At, Age: now.Sub(b.At).Seconds(), Sequence: b.Seq,
		Admin: b.Admin, Claim: b.Claim, Current: b.Claim == head.Claim.ID,
	}
}

// readStatus asks the store, the head first.
func readStatus(ctx context.Context, store driver.Store, cfg catalog.Config) (status, error) {
	head, err := catalog.ReadHead(ctx, store, cfg)
	if err != nil {
		return status{}, err
	}
	intent, err := leader.ReadIntent(ctx, store, cfg)
	if err != nil {
		return status{}, err
	}
	beat, err := leader.ReadBeat(ctx, store, cfg)
	if err != nil {
		return status{}, err
	}
	given, err := catalog.NewBoard(store, cfg).LastGeneration(ctx)
	if err != nil {
		return status{}, err
	}
	losses, err := catalog.Losses(ctx, store)
	if err != nil {
		return status{}, err
	}
	s := statusOf(head)
	s.Losses = slices.DeleteFunc(append([]catalog.Loss{}, losses...), func(l catalog.Loss) bool { return !l.Open() })
	s.Store = store.String()
	s.Promotion, s.Aborted = promotionOf(intent), abortedAbove(intent, head)
	s.Heartbeat = heartbeatOf(beat, head, time.Now())
	s.Allocated = given
	s.Hosts, err = hostsOf(ctx, store)
	return s, err
}

// hostsOf returns the servers that keep a store, if its driver tells them.
func hostsOf(ctx context.Context, store driver.Store) ([]driver.Host, error) {
	teller, ok := driver.As[driver.HostTeller](store)
	if !ok {
		return nil, nil
	}
	return teller.Hosts(ctx)
}

func statusOf(head driver.Head) status {
	if head.IsZero() {
		return status{}
	}
	c := head.Claim
	return status{
		Token: &c.Token, Generation: c.Token.Generation, Epoch: c.Token.Epoch, Holder: &c.Holder,
		Claim: &c.ID, Reason: c.Reason, Revision: head.Revision, Commit: &head.Commit,
		DataVersion: c.DataVersion, ReadableBy: c.ReadableBy,
	}
}

// print lays the status out for people.
func (s status) print(w io.Writer, now time.Time) error {
	rows := [][]string{{"store", s.Store}}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if s.Token == nil {
		add("token", "none: nobody has claimed this catalog yet")
	} else {
		add("token", "%v", s.Token)
		add("holder", "%s", holder(*s.Holder))
		add("since", "%s", when(s.Holder.Since, now))
		add("reason", "%s", cell(s.Reason))
		add("revision", "%d", s.Revision)
		add("newest commit", "%v", s.Commit)
		add("data version", "%d", s.DataVersion)
		add("readable by", "builds that know data version %d or later", s.ReadableBy)
	}
	add("promotion", "%s", s.promotion(now))
	if len(s.Aborted) > 0 {
		add("given up", "generations %v", s.Aborted)
	}
	add("heartbeat", "%s", s.heartbeat(now))
	add("generations", "%s", s.allocated())
	for _, h := range s.Hosts {
		add("host", "%s", cell(h.String()))
		if h.Remedy != "" {
			add("", "→ %s", h.Remedy)
		}
	}
	for _, l := range s.Losses {
		rows = append(rows, lossRows(l, now)...)
	}
	return table(w, rows)
}

func (s status) promotion(now time.Time) string {
	p := s.Promotion
	if p == nil {
		return "none"
	}
	state := "waits for it to claim"
	switch {
	case s.Generation == p.Generation:
		state = "it leads"
	case s.Generation > p.Generation:
		state = "superseded"
	}
	return fmt.Sprintf("generation %v by %s, %s%s: %s", p.Generation, cell(p.By), when(p.At, now), why(p.Reason), state)
}

func (s status) heartbeat(now time.Time) string {
	b := s.Heartbeat
	if b == nil {
		return "none"
	}
	text := age(now.Sub(b.At))
	if b.Admin != "" {
		text += ", admin at " + cell(b.Admin)
	}
	if !b.Current {
		text += ", of an earlier holder"
	}
	return text
}

// lossRows say what was lost, by whom that was found, and what to do.
func lossRows(l catalog.Loss, now time.Time) [][]string {
	effect := "no process claims until this is dealt with"
	if !l.Stands() {
		effect = "found once another process had claimed: no claim is refused"
	}
	return [][]string{
		{"LOST", cell(l.Revisions())},
		{"", cell(fmt.Sprintf("found by %s, %s, on %s: %s", l.By, when(l.At, now), l.Place, l.What))},
		{"", fmt.Sprintf("loss %v: %s", l.ID, effect)},
		{"", fmt.Sprintf("→ fencepost restored --above %v, to go on from what is left", l.Token)},
		{"", fmt.Sprintf("→ fencepost restored --dismiss=%v, if nothing was lost", l.ID)},
	}
}

func (s status) allocated() string {
	if s.Allocated == generation.None {
		return "none handed out"
	}
	return fmt.Sprintf("handed out up to %v", s.Allocated)
}
