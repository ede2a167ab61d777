package work_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

// The collections of package work, which the ledger reads by itself.
const (
	jobEntries   = "fencepost.work.jobs"
	runEntries   = "fencepost.work.runs"
	deadEntries  = "fencepost.work.dead"
	leftEntries  = "fencepost.work.progress"
	totalEntries = "fencepost.work.totals"
)

// effects has what runs write together with the completion of their job.
var effects = catalog.JSON[effect]("effects")

type effect struct {
	Times int
	Token fence.Token
}

// A ledger judges every commit of a log by the promises of package work. It shares no
// code with the package: it knows the entries, and the token of each commit.
type ledger struct {
	t        testing.TB
	kinds    map[string]work.Order
	revision uint64
	jobs     map[string]ledgerJob
	runs     map[string]ledgerRun // those that have no job any more, too
	dead     map[string]string    // kinds
	last     string               // the highest ID
	counts   map[string]*work.Totals
	stored   map[string]work.Totals
	claims   map[claimKey]fence.Token // every claim of a job that has landed
	claimed  map[startKey]int         // how many there were
	done     map[string]ledgerRun     // completed jobs, and the run that did them
	effects  map[string]effect
}

type ledgerJob struct{ Kind, Key string }

type ledgerRun struct {
	Claim  fence.Token
	Serial int
}

type claimKey struct {
	id     string
	serial int
}

type startKey struct {
	id    string
	token fence.Token
}

func newLedger(t testing.TB, kinds map[string]work.Order) *ledger {
	return &ledger{
		t: t, kinds: kinds, jobs: map[string]ledgerJob{}, runs: map[string]ledgerRun{}, dead: map[string]string{},
		counts: map[string]*work.Totals{}, stored: map[string]work.Totals{}, claims: map[claimKey]fence.Token{}, claimed: map[startKey]int{},
		done: map[string]ledgerRun{}, effects: map[string]effect{},
	}
}

// A turn is what one commit does to the entries of a job.
type turn struct {
	ledgerJob
	id            string
	before, after ledgerRun
	lived, lives  bool
	wasDead, dies bool
	completed     bool
	effect, left  bool
}

// apply judges a commit, which can be made of several Updates. Each of those that
// change a job ends with the totals.
func (l *ledger) apply(c catalog.Commit) error {
	all := c.Changes
	for begin, i := 0, 0; i < len(all); i++ {
		if i+1 == len(all) || all[i].Collection == totalEntries && all[i+1].Collection != totalEntries {
			c.Changes = all[begin : i+1]
			l.update(c)
			begin = i + 1
		}
	}
	l.revision = c.Revision
	return nil
}

// update judges one Update of a commit.
func (l *ledger) update(c catalog.Commit) {
	turns := l.turns(c)
	for _, id := range slices.Sorted(maps.Keys(turns)) {
		l.judge(c, turns[id])
	}
	for _, tn := range turns {
		if tn.lived && !tn.lives && !tn.dies && !tn.completed {
			l.merge(c, tn, turns)
		}
	}
	for id, tn := range turns {
		l.enter(id, tn)
	}
	l.addUp(c)
}

// turns gathers the changes of a commit by job.
func (l *ledger) turns(c catalog.Commit) map[string]*turn {
	turns := map[string]*turn{}
	of := func(id string) *turn {
		if turns[id] == nil {
			job, lives := l.jobs[id]
			kind, isDead := l.dead[id]
			if isDead {
				job.Kind = kind
			}
			run := l.runs[id]
			turns[id] = &turn{ledgerJob: job, id: id, before: run, after: run, lived: lives, lives: lives, wasDead: isDead, dies: isDead}
		}
		return turns[id]
	}
	for _, ch := range c.Changes {
		switch ch.Collection {
		case jobEntries:
			tn := of(ch.Key)
			if tn.lives = !ch.Delete; tn.lives {
				l.decode(ch, &tn.ledgerJob)
			}
		case runEntries:
			tn := of(ch.Key)
			if tn.after = (ledgerRun{}); !ch.Delete {
				l.decode(ch, &tn.after)
			}
		case deadEntries:
			tn := of(ch.Key)
			if tn.dies = !ch.Delete; tn.dies && !tn.lived {
				var rec struct{ Job ledgerJob }
				l.decode(ch, &rec)
				tn.ledgerJob = rec.Job
			}
		case leftEntries:
			of(ch.Key).left = of(ch.Key).left || !ch.Delete
		case totalEntries:
			var t work.Totals
			l.decode(ch, &t)
			l.stored[ch.Key] = t
		case effects.Name():
			var e effect
			l.decode(ch, &e)
			of(ch.Key).effect = true
			l.effects[ch.Key] = e
		}
	}
	return turns
}

func (l *ledger) decode(ch catalog.Change, into any) {
	require.NoError(l.t, json.Unmarshal(ch.Value, into), "%s %s", ch.Collection, ch.Key)
}

func (l *ledger) of(kind string) *work.Totals {
	if l.counts[kind] == nil {
		l.counts[kind] = new(work.Totals)
	}
	return l.counts[kind]
}

// judge refuses a change of a job that its token must not make.
func (l *ledger) judge(c catalog.Commit, tn *turn) {
	totals := l.of(tn.Kind)
	mine := tn.before.Claim == c.Token
	l.refuse(tn.lives && tn.dies, c, tn, "it is both live and dead")
	switch {
	case !tn.lived && tn.lives && !tn.wasDead:
		l.refuse(tn.id <= l.last, c, tn, "its ID is used again")
		l.last = tn.id
		totals.Enqueued++
	case !tn.lived && tn.lives:
		totals.Retried++
	case tn.lived && tn.dies:
		totals.Died++
	case tn.wasDead && !tn.dies:
		totals.Cleared++
	case tn.lived && !tn.lives && mine:
		_, before := l.done[tn.id]
		l.refuse(before, c, tn, "it is completed again")
		tn.completed = true
		totals.Completed++
	}
	l.refuse(tn.effect && !tn.completed, c, tn, "an effect without its completion")
	l.refuse(tn.left && !mine, c, tn, "progress of a run that has no claim")
	l.judgeClaim(c, tn)
}

// judgeClaim refuses a claim for another token, and one that is there already.
func (l *ledger) judgeClaim(c catalog.Commit, tn *turn) {
	after := tn.after
	if after == tn.before || !tn.lives || after.Claim.IsZero() {
		return
	}
	key := claimKey{tn.id, after.Serial}
	_, known := l.claims[key]
	l.refuse(after.Claim != c.Token, c, tn, "a claim for another token")
	l.refuse(after.Claim == tn.before.Claim, c, tn, "a claim of what is claimed")
	l.refuse(known || after.Serial <= tn.before.Serial, c, tn, "a claim with a serial that is used")
	l.claims[key] = after.Claim
	l.claimed[startKey{tn.id, after.Claim}]++
}

func (l *ledger) refuse(wrong bool, c catalog.Commit, tn *turn, what string) {
	if wrong {
		require.FailNow(l.t, what, "revision %d under %v, job %s of %s %q, run %+v, then %+v\n%s", c.Revision, c.Token, tn.id, tn.Kind, tn.Key, tn.before, tn.after, describe(c))
	}
}

// merge refuses that a job vanishes which no run has done.
func (l *ledger) merge(c catalog.Commit, tn *turn, turns map[string]*turn) {
	l.refuse(l.kinds[tn.Kind] != work.Latest || !l.covered(c, tn, turns), c, tn, "it vanishes, and no run under this token has done it")
	l.of(tn.Kind).Merged++
}

// covered reports whether a newer job of the key runs under the commit's token, or
// goes to the dead list in it.
func (l *ledger) covered(c catalog.Commit, tn *turn, turns map[string]*turn) bool {
	for id, job := range l.jobs {
		other := turns[id]
		if id > tn.id && job == tn.ledgerJob && (l.runs[id].Claim == c.Token || other != nil && other.dies) {
			return true
		}
	}
	return false
}

// enter enters what a commit did to a job.
func (l *ledger) enter(id string, tn *turn) {
	switch {
	case tn.lives:
		l.jobs[id], l.runs[id] = tn.ledgerJob, tn.after
		delete(l.dead, id)
		return
	case tn.dies:
		l.dead[id] = tn.Kind
	case tn.completed:
		l.done[id] = tn.before
	}
	if !tn.dies {
		delete(l.dead, id)
	}
	delete(l.jobs, id)
	delete(l.runs, id)
}

// addUp compares the totals that the commit stored with what has happened.
func (l *ledger) addUp(c catalog.Commit) {
	live, dead, claimed := map[string]int64{}, map[string]int64{}, map[string]int64{}
	for id, job := range l.jobs {
		live[job.Kind]++
		if !l.runs[id].Claim.IsZero() {
			claimed[job.Kind]++
		}
	}
	for _, kind := range l.dead {
		dead[kind]++
	}
	for kind, want := range l.counts {
		t := l.stored[kind]
		have := [9]int64{t.Enqueued, t.Completed, t.Merged, t.Died, t.Retried, t.Cleared, t.Live(), t.Dead(), t.Claimed()}
		should := [9]int64{want.Enqueued, want.Completed, want.Merged, want.Died, want.Retried, want.Cleared, live[kind], dead[kind], claimed[kind]}
		if have != should {
			require.Equal(l.t, should, have, "revision %d under %v, totals of %s %+v\n%s", c.Revision, c.Token, kind, t, describe(c))
		}
	}
}

func describe(c catalog.Commit) string {
	var b strings.Builder
	for _, ch := range c.Changes {
		fmt.Fprintf(&b, "%s %s deleted=%v %s\n", ch.Collection, ch.Key, ch.Delete, ch.Value)
	}
	return b.String()
}
