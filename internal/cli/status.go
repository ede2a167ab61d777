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
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) statusCommand() *cobra.Command {
	var expect expectation
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say who leads and serves, or that nobody does and why",
		Long: `Status begins with the verdict: who leads and serves, since when; or that nobody
does, since when, why, and who could. Below it stand the token and its holder, how
long the log is, the promotion that is asked for, the holder's last heartbeat,
what the store was found to have lost, until somebody has dealt with that, the
servers that keep the store (for PostgreSQL every host of the URL, with its role,
timeline and system identifier, or why it can't be reached), and the members: every
process of the service, and whether it could lead or why not. It writes nothing
and needs no token.

A member writes its note when something changes, and once a lease; behind is how
many commits it has not read yet, which is asked by its admin API if it is on this
host. A member whose note is three leases old by this clock is left out, and
counted; the holder removes its note.

A catalog that nobody has claimed yet is no error. The other catalogs of the same
store are named then, as the name may be mistyped.

With --expect the status is a script's answer: serving, a process holds the token
and says that it serves; claimed, a process holds the token, whether it serves or
not. Only a living process is believed: one on this host that answers by its
admin API, or a heartbeat that comes while the command looks, which takes a third of the
holder's lease at most (2.5s by default) and ends with --timeout. A token that
fence or restored has raised is held by nobody. It ends with 0 if it is so, with 1
if it is not, with 75 if that was not known in time.`,
		Example: `  fencepost status --store sqlite:/var/lib/app/catalog.db
  fencepost status --expect serving --timeout 30s
  fencepost status --json | jq -r .verdict.state`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar((*string)(&expect), "expect", "", "end with 0 only if it is so: `serving` or claimed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := expect.check(); err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.withStore(ctx, func(ctx context.Context, store driver.Store) error { return a.status(ctx, store, expect) })
		})(cmd, args)
	}
	return cmd
}

func (a *app) status(ctx context.Context, store driver.Store, expect expectation) error {
	var s status
	cfg := a.config(a.timeout)
	var l look
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		l, err = readLook(ctx, store, cfg)
		return err
	})
	var found *expected
	if err == nil && expect != "" {
		err = bounded(ctx, 2*a.timeout, func(ctx context.Context) error {
			later, x, err := expect.await(ctx, store, cfg, l, a.timeout)
			l, found = later, &x
			return err
		})
	}
	if err == nil {
		err = bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
			s, err = readStatus(ctx, store, cfg, l)
			return err
		})
	}
	if err != nil {
		return err
	}
	if s.Expected = found; found != nil && !found.Met {
		a.code = exitcodes.Failure
		if found.Unknown {
			a.code = exitcodes.TempFail
		}
	}
	return a.show(s, func(w io.Writer) error { return s.print(w, time.Now()) })
}

// A status is what a catalog's head and board say. What nobody wrote yet is
// null in JSON.
type status struct {
	Verdict     verdict                 `json:"verdict"`
	Expected    *expected               `json:"expected"` // null: nothing was expected
	Store       string                  `json:"store"`
	Others      *others                 `json:"other_catalogs"` // of the same store; null: this one was claimed
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
	Members     []member                `json:"members"`
	Unheard     int                     `json:"members_unheard"` // whose note is three leases old by this clock
	Ended       int                     `json:"members_ended"`   // whose process has ended, as the kernel of this host says
	More        bool                    `json:"more_members"`    // there are more than were read
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
	Current  bool      `json:"current"` // of the newest claim
	Left     bool      `json:"left"`    // no work runs, and other processes may claim
}

func heartbeatOf(b leader.Beat, head driver.Head, now time.Time) *heartbeat {
	if b.At.IsZero() {
		return nil
	}
	return &heartbeat{
		At: b.At, Age: now.Sub(b.At).Seconds(), Sequence: b.Seq,
		Admin: b.Admin, Claim: b.Claim, Current: b.Claim == head.Claim.ID, Left: b.Left,
	}
}

// readLook asks who leads. The head comes last: what the holder says is true as long as
// the head says that it holds the token.
func readLook(ctx context.Context, store driver.Store, cfg catalog.Config) (l look, err error) {
	l.at = time.Now()
	if err := l.readBoard(ctx, store, cfg); err != nil {
		return l, err
	}
	if l.members, err = leader.ReadMembers(ctx, store, cfg); err != nil {
		return l, err
	}
	l.ask(ctx)
	return l, l.readHead(ctx, store, cfg)
}

func (l *look) readBoard(ctx context.Context, store driver.Store, cfg catalog.Config) (err error) {
	if l.intent, err = leader.ReadIntent(ctx, store, cfg); err != nil {
		return err
	}
	l.beat, err = leader.ReadBeat(ctx, store, cfg)
	return err
}

// readHead comes last, so that a claim that came before the intent or the heartbeat
// was changed is seen.
func (l *look) readHead(ctx context.Context, store driver.Store, cfg catalog.Config) (err error) {
	if l.head, err = catalog.ReadHead(ctx, store, cfg); err != nil || l.head.IsZero() {
		return err
	}
	l.raised, err = catalog.HasNoHolder(ctx, catalog.NewBoard(store, cfg), l.head.Claim.ID)
	return err
}

// readStatus asks for the rest.
func readStatus(ctx context.Context, store driver.Store, cfg catalog.Config, l look) (status, error) {
	given, err := catalog.NewBoard(store, cfg).LastGeneration(ctx)
	if err != nil {
		return status{}, err
	}
	losses, err := catalog.Losses(ctx, store)
	if err != nil {
		return status{}, err
	}
	s, now := statusOf(l.head), time.Now()
	s.Losses = slices.DeleteFunc(append([]catalog.Loss{}, losses...), func(l catalog.Loss) bool { return !l.Open() })
	s.Store = store.String()
	s.Verdict = l.verdict(now)
	s.Promotion, s.Aborted = promotionOf(l.intent), abortedAbove(l.intent, l.head)
	s.Heartbeat = heartbeatOf(l.beat, l.head, now)
	s.Allocated = given
	s.Members, s.Unheard, s.Ended, s.More = membersOf(l, now), len(l.members.Unheard), len(l.members.Ended), l.members.More
	if l.head.IsZero() {
		s.Others = othersOf(ctx, store)
	}
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
	if err := s.printVerdict(w); err != nil {
		return err
	}
	rows := [][]string{{"store", s.Store}}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if s.Token == nil {
		add("token", "none: nobody has claimed this catalog yet")
		rows = append(rows, s.Others.rows()...)
	} else {
		add("token", "%v", s.Token)
		add("claimed by", "%s", holder(*s.Holder))
		add("claimed", "%s", when(s.Holder.Since, now))
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
	if err := table(w, rows); err != nil {
		return err
	}
	return s.printMembers(w, now)
}

// printVerdict says first what is most asked for.
func (s status) printVerdict(w io.Writer) error {
	text := s.Verdict.Text + "\n"
	if s.Verdict.May != "" {
		text += "→ " + s.Verdict.May + "\n"
	}
	if x := s.Expected; x != nil {
		answer := "no"
		switch {
		case x.Met:
			answer = "yes"
		case x.Unknown:
			answer = "not known in time"
		}
		text += fmt.Sprintf("expected %s: %s: %s\n", x.Expect, answer, cell(x.Why))
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func (s status) promotion(now time.Time) string {
	p := s.Promotion
	if p == nil {
		return "none"
	}
	state := "waits for it to claim"
	switch {
	case s.Generation == p.Generation && s.Verdict.known():
		state = "it leads"
	case s.Generation == p.Generation:
		state = "it has claimed"
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
	switch {
	case !b.Current:
		text += ", of an earlier holder"
	case b.Left:
		text += ", with which the holder let others claim"
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
