package reap

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Stop says why a pass ended.
type Stop string

const (
	StoppedDone      Stop = "done"        // nothing is left to delete
	StoppedYoung     Stop = "young"       // what is left is younger than MinAge
	StoppedYielded   Stop = "yielded"     // another reaper is at work
	StoppedRoom      Stop = "under-limit" // fewer than Limit items are left
	StoppedConflicts Stop = "conflicts"   // MaxConflicts were met
	StoppedFailures  Stop = "failures"    // MaxFailures were met
	StoppedWaited    Stop = "waited"      // MaxWait is spent
	StoppedLocked    Stop = "locked"      // another process of this host has the lock
	StoppedShared    Stop = "shared"      // another process of this host has just done it
	StoppedFenced    Stop = "fenced"      // a guard refused the token
	StoppedContext   Stop = "context"     // the context has ended
	StoppedList      Stop = "list"        // the items could not be listed
	StoppedLock      Stop = "lock"        // the lock file can't be used
	StoppedPolicy    Stop = "policy"      // the policy can't be used
)

// Kept counts the items that a pass left alone, by reason.
type Kept struct {
	Current    int `json:"current"`    // of the current generation or a higher one
	Generation int `json:"generation"` // of a generation that Policy.Keep spares
	Young      int `json:"young"`      // younger than Policy.MinAge
	InUse      int `json:"in_use"`     // referred to, as Policy.InUse says
	Unlabelled int `json:"unlabelled"` // without a token
	Undated    int `json:"undated"`    // without a time, under a MinAge
}

// Sum returns how many items were kept.
func (k Kept) Sum() int {
	return k.Current + k.Generation + k.Young + k.InUse + k.Unlabelled + k.Undated
}

// A Failure is a deletion that failed.
type Failure struct {
	Item Item
	Err  error
}

// failureText is the JSON form of a Failure.
type failureText struct {
	Item  Item   `json:"item"`
	Error string `json:"error"`
}

// MarshalJSON returns the item and the text of the error.
func (f Failure) MarshalJSON() ([]byte, error) {
	return json.Marshal(failureText{f.Item, fmt.Sprint(f.Err)})
}

// UnmarshalJSON reads what MarshalJSON has written. The error has only its text.
func (f *Failure) UnmarshalJSON(text []byte) error {
	var t failureText
	err := json.Unmarshal(text, &t)
	*f = Failure{t.Item, errors.New(t.Error)}
	return err
}

func (f Failure) String() string {
	return fmt.Sprintf("%.64q of %v: %v", f.Item.ID, f.Item.Made, f.Err)
}

// Waited counts the waits of one reason.
type Waited struct {
	Times int           `json:"times"`
	Slept time.Duration `json:"slept_ns"`
}

// A Report says what a pass did. Each item that it has ever listed is counted once in
//
//	Listed = Deleted + Gone + Vanished + Failed + Kept + Left
//
// which [Report.Check] verifies.
type Report struct {
	Lists    int  `json:"lists"`    // calls of List
	Listed   int  `json:"listed"`   // items, over all listings
	Deleted  int  `json:"deleted"`  // by this pass
	Gone     int  `json:"gone"`     // when this pass tried to delete them: wasted deletions
	Vanished int  `json:"vanished"` // from the last listing, before this pass tried
	Failed   int  `json:"failed"`
	Kept     Kept `json:"kept"`
	Left     int  `json:"left"` // items that could be deleted and were not looked at

	Limited int `json:"limited"` // calls that the server refused because of too many

	Failures []Failure             `json:"failures"` // one for each failed item
	Waits    map[WaitReason]Waited `json:"waits"`

	// Ripe is when the oldest item that was too young reaches MinAge, or zero. If the pass
	// was shared, another process has seen that item.
	Ripe time.Time `json:"ripe,omitzero"`

	Stopped Stop          `json:"stopped"`
	Took    time.Duration `json:"took_ns"` // the waits included
}

// Present returns how many items were there at the end, as far as the pass knows.
func (r Report) Present() int { return r.Listed - r.Deleted - r.Gone - r.Vanished }

// Slept returns the sum of all waits.
func (r Report) Slept() (sum time.Duration) {
	for _, w := range r.Waits {
		sum += w.Slept
	}
	return sum
}

// Check returns an error if the sums of the report do not add up, which is a defect of
// this package.
func (r Report) Check() error {
	var errs []error
	if sum := r.Deleted + r.Gone + r.Vanished + r.Failed + r.Kept.Sum() + r.Left; r.Listed != sum {
		errs = append(errs, fmt.Errorf("listed %d, and the fates of %d are known", r.Listed, sum))
	}
	if len(r.Failures) != r.Failed {
		errs = append(errs, fmt.Errorf("failed %d, and %d failures are listed", r.Failed, len(r.Failures)))
	}
	if r.Listed > 0 && r.Lists == 0 {
		errs = append(errs, fmt.Errorf("listed %d without a listing", r.Listed))
	}
	if r.Took > 0 && r.Slept() > r.Took {
		errs = append(errs, fmt.Errorf("slept %v of %v", r.Slept(), r.Took))
	}
	return errors.Join(errs...)
}

// String is one line for people.
func (r Report) String() string {
	return fmt.Sprintf("%s: listed %d in %d listings, deleted %d, kept %d, already gone %d, vanished %d, failed %d, left %d, waited %.3g s",
		r.Stopped, r.Listed, r.Lists, r.Deleted, r.Kept.Sum(), r.Gone, r.Vanished, r.Failed, r.Left, r.Slept().Seconds())
}
