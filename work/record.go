package work

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// The collections of a catalog in which work is kept. What a state is called is
// derived from these and the token, and stored nowhere.
var (
	jobs       = catalog.JSON[jobRecord]("fencepost.work.jobs")           // by ID: what was enqueued; never changed
	runs       = catalog.JSON[runRecord]("fencepost.work.runs")           // by ID: what became of it so far; none before the first claim
	progress   = catalog.Bytes("fencepost.work.progress")                 // by ID: the job's own
	dead       = catalog.JSON[deadRecord]("fencepost.work.dead")          // by ID: what will not run any more
	totals     = catalog.JSON[Totals]("fencepost.work.totals")            // by kind
	opened     = catalog.JSON[Totals]("fencepost.work.opened")            // by kind: the totals when the newest holder began
	kinds      = catalog.JSON[kindRecord]("fencepost.work.kinds")         // by kind: as the newest holder that knew it runs it
	failures   = catalog.JSON[Failure]("fencepost.work.failures")         // a ring of the newest
	takeovers  = catalog.JSON[Takeover]("fencepost.work.takeovers")       // a ring of the newest
	replies    = catalog.JSON[replyRecord]("fencepost.work.replies")      // by request: a ring of the newest answers
	takenRefs  = catalog.JSON[[]string]("fencepost.work.taken")           // requests that may still be in the inbox although they were acted upon
	replySlots = catalog.JSON[string]("fencepost.work.replies.slots")     // the ring: which request's answer is in which place
	sequence   = catalog.JSON[sequenceRecord]("fencepost.work.sequences") // the numbers that were given out last
)

// An ID numbers the jobs of a catalog in the order in which they were enqueued,
// from 1. It is never reused.
type ID uint64

// String returns the number in decimal.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ParseID reads what [ID.String] wrote.
func ParseID(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || n > maxID {
		return 0, fmt.Errorf("work: %q is no ID of a job, want a number from 1 to %d", clip(s, 64), uint64(maxID))
	}
	return ID(n), nil
}

const maxID = 1e16 - 1

// entry is the key of the job's entries, in the order of the numbers.
func (id ID) entry() string { return fmt.Sprintf("%016d", uint64(id)) }

func parseEntry(key string) (ID, error) {
	n, err := strconv.ParseUint(key, 10, 64)
	if err != nil || len(key) != 16 || n == 0 {
		return 0, fmt.Errorf("work: %q is not the key of a job", clip(key, 64))
	}
	return ID(n), nil
}

// jobRecord is a job as it was enqueued.
type jobRecord struct {
	Kind     string      `json:"kind"`
	Key      string      `json:"key,omitempty"`
	Payload  []byte      `json:"payload,omitempty"`
	Made     fence.Token `json:"made"` // under which it was enqueued
	MadeAt   time.Time   `json:"made_at"`
	RunAt    time.Time   `json:"run_at,omitzero"` // before which it does not run; zero: at once
	Again    time.Time   `json:"again,omitzero"`  // when a person moved it back from the dead list
	Priority int         `json:"priority,omitempty"`
	Member   string      `json:"member,omitempty"` // the holder's name, if pinned to that
	Ref      string      `json:"ref,omitempty"`    // of the request that enqueued it
	From     string      `json:"from,omitempty"`   // from whom it was reassigned

	Generation generation.Generation `json:"generation,omitempty"` // if pinned to that
}

// readJob reads a job. One whose entry can't be read comes with the reason, and with
// the whole entry as its payload, so that nothing of it is lost.
func readJob(s catalog.Source, key string) (rec jobRecord, found bool, spoilt, err error) {
	raw, found, err := catalog.Bytes(jobs.Name()).Get(s, key)
	if err != nil || !found {
		return rec, found, nil, err
	}
	if spoilt = json.Unmarshal(raw, &rec); spoilt != nil {
		var index indexRecord
		_ = json.Unmarshal(raw, &index) // as far as that goes
		rec = jobRecord{Kind: index.Kind, Key: index.Key, Made: index.Made, MadeAt: index.MadeAt, RunAt: index.RunAt, Again: index.Again, Payload: raw}
	}
	return rec, true, spoilt, nil
}

// since returns when the job was first due.
func (j jobRecord) since() time.Time { return latest(j.MadeAt, j.RunAt, j.Again) }

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// runRecord is what became of a job so far.
type runRecord struct {
	Claim  fence.Token `json:"claim,omitzero"` // under which it runs; zero: it does not
	Serial int         `json:"serial"`         // number of its claims
	At     time.Time   `json:"at"`             // of the newest claim or failure

	Attempt     int `json:"attempt,omitempty"`     // runs that count, the one under way included
	Interrupted int `json:"interrupted,omitempty"` // by a deploy or a requested stop
	Crashed     int `json:"crashed,omitempty"`     // runs whose process died or was fenced within its generation

	NotBefore time.Time     `json:"not_before,omitzero"` // of the retry
	Wait      time.Duration `json:"wait_ns,omitempty"`   // for the retry, from At
	Error     string        `json:"error,omitempty"`     // of the newest failure
	From      fence.Token   `json:"from,omitzero"`       // whose run the newest claim took over
	Covers    int           `json:"covers,omitempty"`    // further jobs of the key that this run does too
	Adopted   string        `json:"adopted,omitempty"`   // to whom the job was pinned, if that is gone
}

// deadRecord is a job that does not run any more, until a person decides.
type deadRecord struct {
	Job    jobRecord   `json:"job"`
	Run    runRecord   `json:"run"`
	Reason Reason      `json:"reason"`
	Text   string      `json:"text"`
	At     time.Time   `json:"at"`
	By     fence.Token `json:"by"`
}

// Reason says why a job is on the dead list.
type Reason string

// The reasons why a job is on the dead list.
const (
	Exhausted Reason = "exhausted" // it has failed or crashed MaxAttempts times
	Refused   Reason = "permanent" // its run returned an error from Permanent
	Abandoned Reason = "abandoned" // a person gave it up
	Malformed Reason = "malformed" // a request that can't be read
)

// kindRecord is what a holder says of a kind that it runs.
type kindRecord struct {
	Token      fence.Token   `json:"token"` // of the newest holder that runs it
	Order      string        `json:"order"`
	Pin        string        `json:"pin"`
	MaxPayload int           `json:"max_payload"`
	MaxQueued  int           `json:"max_queued"`
	Attempts   int           `json:"max_attempts"`
	Stale      time.Duration `json:"stale_ns"`
	Slow       time.Duration `json:"slow_ns,omitempty"`
	TakeOver   bool          `json:"take_over,omitempty"`
}

// replyRecord answers a request.
type replyRecord struct {
	Number uint64    `json:"number"`
	At     time.Time `json:"at"`
	ID     ID        `json:"id,omitempty"`
	Text   string    `json:"text,omitempty"`
	Error  string    `json:"error,omitempty"`

	moved int // jobs that this commit has reassigned
}

// sequenceRecord keeps a number that only grows.
type sequenceRecord struct {
	Last uint64 `json:"last"`
}

// The keys of the sequences.
const (
	jobSequence     = "jobs"
	replySequence   = "replies"
	takenSequence   = "taken"
	failureSequence = "failures"
	openSequence    = "takeovers"
)

// take returns n fresh numbers of a sequence: the first of them.
func take(tx *catalog.Tx, name string, n uint64) (uint64, error) {
	s, _, err := sequence.Get(tx, name)
	if err != nil {
		return 0, err
	}
	first := s.Last + 1
	s.Last += n
	if s.Last > maxID {
		return 0, fmt.Errorf("work: the sequence %q is used up", name)
	}
	return first, sequence.Set(tx, name, s)
}

// kept is how many failures, takeovers and replies are kept.
const (
	kept        = 128
	keptReplies = 1024
)

func ring(number uint64, size uint64) string { return fmt.Sprintf("%04d", number%size) }

// A tally is what one commit adds to the totals, by kind.
type tally map[string]*Totals

func (t tally) of(kind string) *Totals {
	if t[kind] == nil {
		t[kind] = new(Totals)
	}
	return t[kind]
}

// write adds the tally to the totals.
func (t tally) write(tx *catalog.Tx) error {
	for _, kind := range slices.Sorted(maps.Keys(t)) {
		sum, _, err := totals.Get(tx, kind)
		if err != nil {
			return err
		}
		if err := totals.Set(tx, kind, sum.plus(*t[kind])); err != nil {
			return err
		}
	}
	return nil
}

// clip returns at most n bytes of s, and says how long it was.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:n], len(s))
}

var errName = errors.New("not a name")

func checkName(name string) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return errName
	}
	return nil
}
