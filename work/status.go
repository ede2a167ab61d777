package work

import (
	"time"

	"github.com/fencepost/fencepost/fence"
)

// A Report says what one pass has found and done.
type Report struct {
	Number  int           `json:"number"` // from 1, since the Queue began
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Trigger string        `json:"trigger"` // open, commit, return, time or asked

	// What was found is the sum of these.
	Running    int `json:"running"`     // already, before the pass
	LostClaims int `json:"lost_claims"` // claimed by a commit whose answer was lost; started now
	Claimed    int `json:"claimed"`     // and started
	Died       int `json:"died"`        // moved to the dead list in place of a run
	Waiting    int `json:"waiting"`     // due, without a free slot or a commit
	Unknown    int `json:"unknown"`     // of a kind that this holder does not know
	Stranded   int `json:"stranded"`    // pinned to a generation or member that is gone

	// Of Running, behind the pass:
	Ended   int `json:"ended"`   // the pass wrote what became of them
	Leaving int `json:"leaving"` // their job was taken from them, and they have not returned
}

// Held returns how many jobs ran behind the pass.
func (r Report) Held() int { return r.Running - r.Ended - r.Leaving + r.LostClaims + r.Claimed }

// Found returns how many jobs the pass has looked at.
func (r Report) Found() int {
	return r.Running + r.LostClaims + r.Claimed + r.Died + r.Waiting + r.Unknown + r.Stranded
}

// A Failure is a run that has failed.
type Failure struct {
	Number  uint64        `json:"number"`
	ID      ID            `json:"id"`
	Kind    string        `json:"kind"`
	Key     string        `json:"key,omitempty"`
	Attempt int           `json:"attempt"`
	Error   string        `json:"error"`
	At      time.Time     `json:"at"`
	Token   fence.Token   `json:"token"`
	Took    time.Duration `json:"took_ns"`
	Dead    bool          `json:"dead,omitempty"` // the job went to the dead list
}

// Info is one job as it stands.
type Info struct {
	ID       ID          `json:"id"`
	Kind     string      `json:"kind"`
	Key      string      `json:"key,omitempty"`
	State    State       `json:"state"` // empty: it is dead
	Priority int         `json:"priority,omitempty"`
	Made     fence.Token `json:"made,omitzero"`
	MadeAt   time.Time   `json:"made_at"`
	Due      time.Time   `json:"due"` // when it was first due
	Owner    string      `json:"owner,omitempty"`
	From     string      `json:"from,omitempty"` // from whom it was reassigned or taken over
	Ref      string      `json:"ref,omitempty"`
	Size     int         `json:"payload_bytes"`
	Left     int         `json:"progress_bytes,omitempty"`

	Claim       fence.Token `json:"claim,omitzero"`
	At          time.Time   `json:"at,omitzero"` // of the newest claim or failure
	Attempt     int         `json:"attempt,omitempty"`
	Interrupted int         `json:"interrupted,omitempty"`
	Crashed     int         `json:"crashed,omitempty"`
	NotBefore   time.Time   `json:"not_before,omitzero"`
	Error       string      `json:"error,omitempty"`

	Reason Reason    `json:"reason,omitempty"` // why it is dead
	Text   string    `json:"text,omitempty"`
	DeadAt time.Time `json:"dead_at,omitzero"`

	Payload []byte `json:"payload,omitempty"` // only of Find
}

// Blockage is a key whose jobs wait for one of them.
type Blockage struct {
	Kind    string    `json:"kind"`
	Key     string    `json:"key"`
	Behind  ID        `json:"behind"`
	Jobs    int       `json:"jobs"` // that wait
	State   State     `json:"state"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error,omitempty"`
	Since   time.Time `json:"since"` // when the oldest of those that wait was first due
}

// KindStatus is what the jobs of one kind do.
type KindStatus struct {
	Name      string        `json:"name"`
	Known     bool          `json:"known"` // the newest of Takeovers runs it
	Live      int           `json:"live"`  // the sum of States
	States    map[State]int `json:"states"`
	Suspended int           `json:"suspended"` // of those that are unknown or stranded: they ran when their holder ended
	Dead      int           `json:"dead"`
	Totals    Totals        `json:"totals"`
	Since     Totals        `json:"since_open"` // since the newest of Takeovers
	Stale     time.Duration `json:"stale_ns"`
	Slow      time.Duration `json:"slow_ns"`
	Oldest    *Info         `json:"oldest,omitempty"`  // of those that are due and don't run, the one that was due first
	Slowest   *Info         `json:"slowest,omitempty"` // of those that run, the one that has for longest

	// Urgent are, of the jobs of each state with a priority of 0 or more, the one that
	// was due first; of those that run, the one that has for longest. Only they raise
	// alarms. A job that the run of a newer one of its key does too is not among them.
	Urgent     map[State]*Info `json:"urgent,omitempty"`
	UrgentDead int             `json:"urgent_dead"` // of Dead, those with a priority of 0 or more
	DeadSince  time.Time       `json:"dead_since,omitzero"`
}

// A Status says what the jobs of a catalog do.
type Status struct {
	At       time.Time    `json:"at"`
	Revision uint64       `json:"revision"`
	Token    fence.Token  `json:"token,omitzero"`
	Holder   fence.Holder `json:"holder"`

	Live      int           `json:"live"` // the sum of States
	States    map[State]int `json:"states"`
	Suspended int           `json:"suspended"`
	Dead      int           `json:"dead"`

	// Unreadable counts the entries that can't be read, by what they are: jobs, runs,
	// dead and so on. Broken names 128 of them. A job that can't be read is in Live, and
	// in no kind.
	Unreadable map[string]int `json:"unreadable"`
	Broken     []string       `json:"broken"`

	Kinds     []KindStatus `json:"kinds"`
	Totals    Totals       `json:"totals"`
	Since     Totals       `json:"since_open"` // since the newest of Takeovers
	Blocked   []Blockage   `json:"blocked"`    // 128 at most, those with the most jobs first
	Failures  []Failure    `json:"failures"`   // the newest 128, newest first
	Takeovers []Takeover   `json:"takeovers"`  // likewise

	// Pass is the newest one; only the Queue itself knows it.
	Pass *Report `json:"last_pass,omitempty"`
}

// Attended reports whether a Queue has begun under the token that is the newest.
func (s Status) Attended() bool {
	return len(s.Takeovers) > 0 && s.Takeovers[0].Token == s.Token
}
