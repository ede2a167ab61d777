package work

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// textRows is how many rows of a list the text has; the JSON has all.
const textRows = 5

// WriteText writes the status for a person who assumes that something is wrong: the
// same figures as its JSON.
func (s Status) WriteText(w io.Writer) error {
	t := &text{w: w, now: s.At}
	t.line("work at revision %d, %s", s.Revision, s.At.UTC().Format(time.RFC3339))
	t.line("%s", s.heldText())
	t.line("")
	t.line("live %d = %s", s.Live, statesText(s.States))
	t.line("claimed %d = running %d + orphan %d + suspended %d", s.States[Running]+s.States[Orphan]+s.Suspended, s.States[Running], s.States[Orphan], s.Suspended)
	t.line("dead %d", s.Dead)
	t.line("since the takeover: %s", s.Since.text())
	t.line("in total:           %s", s.Totals.text())
	if p := s.Pass; p != nil {
		t.line("last pass: number %d, %s ago, by %s, took %s: found %d = running %d + lost claims %d + claimed %d + died %d + waiting %d + unknown %d + stranded %d; wrote the end of %d",
			p.Number, t.ago(p.At), p.Trigger, p.Took.Round(time.Microsecond), p.Found(), p.Running, p.LostClaims, p.Claimed, p.Died, p.Waiting, p.Unknown, p.Stranded, p.Ended)
	}
	if err := s.Sums(); err != nil {
		t.line("THE FIGURES CONTRADICT EACH OTHER: %s", shown(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	s.writeRecovery(t)
	s.writeKinds(t)
	s.writeBlocked(t)
	s.writeFailures(t)
	s.writeTakeovers(t)
	for _, b := range s.Broken[:min(len(s.Broken), textRows)] {
		t.line("can't be read: %s", shown(clip(b, shownError)))
	}
	t.more(len(s.Broken), "that can't be read")
	return t.err
}

// heldText says who holds the token, and whether that runs jobs.
func (s Status) heldText() string {
	if s.Token.IsZero() {
		return "token none: nobody has claimed this catalog yet"
	}
	held := fmt.Sprintf("token %v, claimed by %s", s.Token, shown(s.Holder.Name))
	if !s.Holder.Since.IsZero() {
		held += fmt.Sprintf(", since %s", seconds(s.At.Sub(s.Holder.Since)))
	}
	if !s.Attended() {
		held += ", WHO RUNS NO QUEUE"
	}
	return held
}

// statesText is a sum of states.
func statesText(states map[State]int) string {
	var parts []string
	for _, state := range slices.Backward(States()) {
		parts = append(parts, fmt.Sprintf("%s %d", state, states[state]))
	}
	return strings.Join(parts, " + ")
}

// text is the totals in one line.
func (t Totals) text() string {
	return fmt.Sprintf("enqueued %d, claimed %d (fresh %d, again %d, after crash %d, after deploy %d), completed %d, merged %d, failed %d, released %d, lapsed %d, withdrawn %d, joined %d; died %d, retried %d, cleared %d",
		t.Enqueued, t.Claims(), t.Fresh, t.Again, t.AfterCrash, t.AfterDeploy, t.Completed, t.Merged, t.Failed, t.Released, t.Lapsed, t.Withdrawn, t.Joined, t.Died, t.Retried, t.Cleared)
}

// writeRecovery says what became of what the holder before had left.
func (s Status) writeRecovery(t *text) {
	if len(s.Takeovers) > 0 {
		t.line("%s", s.Takeovers[0].text(s.At))
	}
}

// text says what a holder found when it began.
func (t Takeover) text(now time.Time) string {
	if t.From.IsZero() {
		return fmt.Sprintf("took over: nothing, as the first holder, %v, %s ago", t.Token, seconds(now.Sub(t.At)))
	}
	line := fmt.Sprintf("took over: from %v, by %v, %s ago, a %s: recovered %d of %d orphans", t.From, t.Token, seconds(now.Sub(t.At)), t.Cause(), t.Recovered, t.Orphans)
	if t.First > 0 {
		line += fmt.Sprintf(", first after %s, last after %s", t.First.Round(time.Millisecond/10), t.Last.Round(time.Millisecond/10))
	}
	return line
}

// writeKinds lists the kinds, and the jobs of each that have waited and run for
// longest.
func (s Status) writeKinds(t *text) {
	rows := [][]string{{"KIND", "LIVE", "WAITING", "BACKOFF", "RUNNING", "ORPHAN", "BLOCKED", "SCHEDULED", "UNKNOWN", "STRANDED", "BROKEN", "DEAD", "DONE"}}
	for _, k := range s.Kinds {
		row := []string{shown(k.Name)}
		for _, n := range []int{k.Live, k.States[Waiting], k.States[Backoff], k.States[Running], k.States[Orphan], k.States[Blocked],
			k.States[Scheduled], k.States[Unknown], k.States[Stranded], k.States[Broken], k.Dead, int(k.Totals.Completed + k.Totals.Merged)} {
			row = append(row, strconv.Itoa(n))
		}
		rows = append(rows, row)
	}
	t.table(rows)
	oldest, slowest := s.extremes()
	if oldest != nil {
		t.line("oldest waiting:  %s of kind %s, due %s ago, %s", describe(oldest), shown(oldest.Kind), t.ago(oldest.Due), oldest.State)
	}
	if slowest != nil {
		t.line("longest running: %s of kind %s, for %s under %v", describe(slowest), shown(slowest.Kind), t.ago(slowest.At), slowest.Claim)
	}
}

// extremes are the job that waits and the one that runs for longest.
func (s Status) extremes() (oldest, slowest *Info) {
	for _, k := range s.Kinds {
		if k.Oldest != nil {
			oldest = older(oldest, k.Oldest, dueBefore)
		}
		if k.Slowest != nil {
			slowest = older(slowest, k.Slowest, beganBefore)
		}
	}
	return oldest, slowest
}

func (s Status) writeBlocked(t *text) {
	if len(s.Blocked) == 0 {
		return
	}
	rows := [][]string{{"BLOCKED KIND", "KEY", "JOBS", "FOR", "BEHIND", "WHICH IS", "ATTEMPT", "ERROR"}}
	for _, b := range s.Blocked[:min(len(s.Blocked), textRows)] {
		rows = append(rows, []string{
			shown(b.Kind), shown(clip(b.Key, shownKey)), strconv.Itoa(b.Jobs), t.ago(b.Since), b.Behind.String(), string(b.State), strconv.Itoa(b.Attempt), shown(clip(b.Error, shownError)),
		})
	}
	t.table(rows)
	t.more(len(s.Blocked), "blocked keys")
}

func (s Status) writeFailures(t *text) {
	if len(s.Failures) == 0 {
		return
	}
	rows := [][]string{{"FAILED", "JOB", "KIND", "KEY", "ATTEMPT", "UNDER", "TOOK", "THEN", "ERROR"}}
	for _, f := range s.Failures[:min(len(s.Failures), textRows)] {
		then := "retried"
		if f.Dead {
			then = "dead"
		}
		rows = append(rows, []string{
			t.ago(f.At) + " ago", f.ID.String(), shown(f.Kind), shown(clip(f.Key, shownKey)), strconv.Itoa(f.Attempt), f.Token.String(),
			f.Took.Round(time.Millisecond).String(), then, shown(clip(f.Error, shownError)),
		})
	}
	t.table(rows)
	t.more(len(s.Failures), "failures")
}

func (s Status) writeTakeovers(t *text) {
	if len(s.Takeovers) < 2 {
		return
	}
	rows := [][]string{{"TAKEOVER", "BY", "FROM", "BECAUSE OF", "ORPHANS", "RECOVERED", "FIRST", "LAST"}}
	for _, o := range s.Takeovers[:min(len(s.Takeovers), textRows)] {
		rows = append(rows, []string{
			t.ago(o.At) + " ago", o.Token.String(), o.From.String(), o.Cause(), strconv.Itoa(o.Orphans), strconv.Itoa(o.Recovered),
			o.First.Round(time.Millisecond / 10).String(), o.Last.Round(time.Millisecond / 10).String(),
		})
	}
	t.table(rows)
	t.more(len(s.Takeovers), "takeovers")
}

// A text is written line by line; the first error stays.
type text struct {
	w   io.Writer
	now time.Time
	err error
}

func (t *text) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", args...)
	}
}

func (t *text) table(rows [][]string) {
	t.line("")
	tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if t.err == nil {
			_, t.err = fmt.Fprintln(tw, strings.Join(row, "\t"))
		}
	}
	t.err = cmp.Or(t.err, tw.Flush())
}

// more says how many rows were left out.
func (t *text) more(n int, of string) {
	if n > textRows {
		t.line("and %d more %s: --json has them", n-textRows, of)
	}
}

func (t *text) ago(at time.Time) string { return seconds(t.now.Sub(at)) }

// shown is text that came from somebody else, as one cell: nothing in it moves a
// terminal's cursor or breaks a line.
func shown(s string) string {
	switch {
	case s == "":
		return "-"
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.Quote(s)
	default:
		return s
	}
}
