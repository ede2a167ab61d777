package reap

import (
	"fmt"
	"math"
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
	Failed  int                   `json:"failed"`            // deletions
	Failure string                `json:"failure,omitempty"` // why the items could not be listed
}

// A refusalRecord says for how long the server asked not to be called. The other processes
// of the host do not each ask it, too.
type refusalRecord struct {
	Run   string `json:"run"`
	Clock string `json:"clock"` // by which Until is
	Until int64  `json:"until"` // ns
}

// left returns how long the server is still not to be called.
func (r refusalRecord) left() time.Duration {
	if r.Clock == "" || r.Clock != clock.Timeline() {
		return 0
	}
	return time.Duration(r.Until) - clock.Boot()
}

// shareRefusal notes in the lock file that the server is not to be called for d.
func (r *run) shareRefusal(d time.Duration) {
	now := clock.Boot()
	if r.held == nil || d > math.MaxInt64-now {
		return
	}
	r.held.mine.Refused = refusalRecord{Run: r.id, Clock: clock.Timeline(), Until: int64(now + d)}
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
		Run: r.id, Spared: r.spared, MinAge: r.p.MinAge, Clock: clock.Timeline(), Began: int64(r.listed), Stopped: e.stop,
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
