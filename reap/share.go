package reap

import (
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/clock"
)

// An endRecord says of the last pass that came to an end of its own what others, who
// asked for the same before it began, need not do again.
type endRecord struct {
	Run     string                `json:"run"`
	Spared  generation.Generation `json:"spared"` // the lowest one whose items it kept
	MinAge  time.Duration         `json:"min_age_ns"`
	Clock   string                `json:"clock"` // by which Began is
	Began   int64                 `json:"began"` // ns, when its last listing began
	Stopped Stop                  `json:"stopped"`
	Ripe    time.Time             `json:"ripe,omitzero"`     // of its report
	Failed  int                   `json:"failed"`            // deletions
	Failure string                `json:"failure,omitempty"` // why the items could not be listed
}

// A pauseRecord says until when a pass leaves the server alone, because it was refused or
// keeps below a limit. The other processes of the host leave the server alone, too, and
// the list to that pass, which goes on a little earlier than they do.
type pauseRecord struct {
	Run   string     `json:"run"`
	Why   WaitReason `json:"why"`
	Clock string     `json:"clock"` // by which Until is
	Until int64      `json:"until"` // ns
}

const (
	// headStart is how much earlier than the others a pass goes on behind its pause.
	headStart = longestPoll

	// maxSharedPause bounds the pause that others make: the record outlives the pass.
	maxSharedPause = 15 * time.Minute
)

// left returns how long another pass than run leaves the server alone.
func (p pauseRecord) left(run string) time.Duration {
	if p.Run == run || p.Clock == "" || p.Clock != clock.Timeline() {
		return 0
	}
	return time.Duration(p.Until) - clock.Boot()
}

// sharePause notes in the lock file that this pass leaves the server alone for d.
func (r *run) sharePause(d time.Duration, why WaitReason) {
	if r.held == nil {
		return
	}
	r.held.mine.Paused = pauseRecord{Run: r.id, Why: why, Clock: clock.Timeline(), Until: int64(clock.Boot() + min(d, maxSharedPause))}
	r.held.write()
}

// maxFailureText is how many bytes of an error's text others are told. As JSON it takes six
// times as many at most, so that the record stays below maxLockRecord.
const maxFailureText = 512

// sharedText is an error's text as ASCII, of maxFailureText bytes at most.
func sharedText(err error) string {
	text := strings.Trim(fmt.Sprintf("%+.*q", maxFailureText, err), `"`)
	return text[:min(len(text), maxFailureText)]
}

// share notes in the lock file that this pass has ended, unless others have to do it anew.
func (r *run) share(e *end) {
	switch {
	case r.held == nil, r.report.Lists == 0:
		return
	case e.stop != StoppedDone && e.stop != StoppedYoung && e.stop != StoppedYielded && e.stop != StoppedList:
		return
	}
	done := endRecord{
		Run: r.id, Spared: r.spared, MinAge: r.p.MinAge, Clock: clock.Timeline(), Began: int64(r.listed), Stopped: e.stop, Ripe: r.report.Ripe,
		Failed: r.counts[failed],
	}
	if e.err != nil {
		done.Failure = sharedText(e.err)
	}
	r.held.mine.Ended = &done
	r.held.write()
}

// covers reports whether another process has done all that this pass would do.
func (r *run) covers(done *endRecord) bool {
	switch {
	case done == nil, done.Run == r.id, done.Clock == "", done.Clock != clock.Timeline():
		return false
	case done.Spared < r.spared, done.MinAge > r.p.MinAge:
		return false
	case done.Stopped == StoppedYielded && r.p.OnConflict != Yield:
		return false
	}
	began := time.Duration(done.Began)
	age := clock.Boot() - began
	return began >= r.asked || done.Failure == "" && done.Failed == 0 && age >= 0 && age < r.p.Every
}

// failure is the error that the other process met.
func (done *endRecord) failure() error {
	if done.Failure == "" {
		return nil
	}
	return fmt.Errorf("reap: another process of this host has just failed: %s", done.Failure)
}
