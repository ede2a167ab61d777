package demo

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A report is what -json prints: the sums of both rounds, and of the first one
// the pauses and who held what.
type report struct {
	Store             string        `json:"store"`
	Requests          int           `json:"requests"` // writes that were sent
	Failed            int           `json:"failed"`   // of them, those that were not acknowledged
	Lost              int           `json:"lost"`
	Duplicated        int           `json:"duplicated"`
	StaleAccepted     int           `json:"stale_accepted"`
	RefusedButWritten int           `json:"refused_but_written"`
	PauseMS           int64         `json:"pause_ms"`      // without any acknowledgement, around the promotion
	KillPauseMS       int64         `json:"kill_pause_ms"` // and behind SIGKILL
	Blue              blueReport    `json:"blue"`
	Green             greenReport   `json:"green"`
	StepsFailed       []string      `json:"steps_failed"`
	Rounds            []roundReport `json:"rounds"`
}

type blueReport struct {
	Token    *fence.Token    `json:"token"`
	ExitCode *exitcodes.Code `json:"exit_code"` // null where it did not end by itself
	Restarts int             `json:"restarts"`
}

type greenReport struct {
	Token    *fence.Token `json:"token"` // the last one
	Restarts int          `json:"restarts"`
}

type roundReport struct {
	Title             string      `json:"title"`
	Store             string      `json:"store"`
	Seconds           float64     `json:"seconds"`
	Commits           int         `json:"commits"`
	Requests          int         `json:"requests"`
	Failed            int         `json:"failed"`
	Lost              int         `json:"lost"`
	Duplicated        int         `json:"duplicated"`
	StaleAccepted     int         `json:"stale_accepted"`
	RefusedButWritten int         `json:"refused_but_written"`
	PauseMS           int64       `json:"pause_ms"`
	KillPauseMS       int64       `json:"kill_pause_ms"`
	StopTries         int         `json:"stop_tries"`
	Blue              blueReport  `json:"blue"`
	Green             greenReport `json:"green"`
}

func newReport(rounds []*round) report {
	total := report{StepsFailed: []string{}}
	for i, r := range rounds {
		this := r.report()
		if i == 0 {
			total.Store, total.PauseMS, total.KillPauseMS = this.Store, this.PauseMS, this.KillPauseMS
			total.Blue, total.Green = this.Blue, this.Green
		}
		total.Requests += this.Requests
		total.Failed += this.Failed
		total.Lost += this.Lost
		total.Duplicated += this.Duplicated
		total.StaleAccepted += this.StaleAccepted
		total.RefusedButWritten += this.RefusedButWritten
		total.StepsFailed = append(total.StepsFailed, r.failed...)
		total.Rounds = append(total.Rounds, this)
	}
	return total
}

func (r *round) report() roundReport {
	name, _ := r.storeName(context.Background()) // it was opened before
	acks, _ := r.ledger.progress()
	this := roundReport{
		Title: r.script.title, Store: name, Seconds: r.ended.Sub(r.began).Round(time.Millisecond).Seconds(),
		Commits: r.found.commits, Requests: len(r.ledger.all()), StopTries: r.tries,
		Lost: r.found.lost, Duplicated: r.found.duplicated, StaleAccepted: r.found.stale, RefusedButWritten: r.found.denied,
		Blue:  blueReport{Token: r.lastToken(blueGeneration)},
		Green: greenReport{Token: r.lastToken(greenGeneration)},
	}
	this.Failed = this.Requests - acks
	this.PauseMS, this.KillPauseMS = r.pauses()
	if r.blue != nil {
		this.Blue.Restarts = r.blue.restarts()
	}
	if r.parking != nil {
		this.Blue.ExitCode, this.Blue.Restarts = &r.parking.Record.Code, r.parking.Restarts
	}
	if r.green != nil {
		this.Green.Restarts = r.green.restarts()
	}
	return this
}

// pauses returns the longest time without an acknowledgement at the stable
// address, around the promotion and behind SIGKILL.
func (r *round) pauses() (promotion, kill int64) {
	times := r.ledger.ackTimes()
	until := r.ended
	if !r.killAt.IsZero() {
		until = r.killAt
		kill = longestPause(times, r.killAt, r.ended).Milliseconds()
	}
	if !r.promotedAt.IsZero() {
		promotion = longestPause(times, r.promotedAt, until).Milliseconds()
	}
	return promotion, kill
}

func (r *round) lastToken(g generation.Generation) (last *fence.Token) {
	for _, c := range r.found.claims {
		if c.Token.Generation == g {
			last = &c.Token
		}
	}
	return last
}

// good reports whether all went as it must.
func (r report) good() bool {
	return r.Lost+r.Duplicated+r.StaleAccepted+r.RefusedButWritten+len(r.StepsFailed) == 0
}

// verdict says in a sentence what came of it.
func (r report) verdict() string {
	kept := r.Requests - r.Failed
	if r.Lost+r.Duplicated+r.StaleAccepted+r.RefusedButWritten > 0 {
		return fmt.Sprintf("NOT GOOD: of %d acknowledged writes %d are lost and %d are there twice; %d of a fenced server were accepted, and %d that were refused are there.",
			kept, r.Lost, r.Duplicated, r.StaleAccepted, r.RefusedButWritten)
	}
	if len(r.StepsFailed) > 0 {
		return fmt.Sprintf("NOT GOOD: %d steps did not happen: %s.", len(r.StepsFailed), strings.Join(r.StepsFailed, "; "))
	}
	return fmt.Sprintf("Good: each of %d acknowledged writes is in the store exactly once, and none came behind a claim that had fenced its server.", kept)
}

// show draws the timelines and the table, for people.
func (d *demo) show(rounds []*round, total report) {
	var text strings.Builder
	for i, r := range rounds {
		fmt.Fprintf(&text, "\nround %d: %s\n%s", i+1, r.script.title, r.timeline())
	}
	text.WriteString(legend + "\n")
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(title string, cell func(roundReport) string) {
		_, _ = fmt.Fprint(table, title)
		for _, r := range total.Rounds {
			_, _ = fmt.Fprint(table, "\t"+cell(r))
		}
		_, _ = fmt.Fprintln(table)
	}
	_, _ = fmt.Fprintln(table, "\tround 1\tround 2")
	for _, line := range tableLines() {
		row(line.title, line.cell)
	}
	_ = table.Flush() // it writes to memory
	text.WriteString("\n" + total.verdict() + "\n")
	d.progress.print(text.String())
}

type tableLine struct {
	title string
	cell  func(roundReport) string
}

func tableLines() []tableLine {
	number := func(title string, value func(roundReport) int) tableLine {
		return tableLine{title, func(r roundReport) string { return fmt.Sprint(value(r)) }}
	}
	return []tableLine{
		number("writes sent", func(r roundReport) int { return r.Requests }),
		number("not acknowledged", func(r roundReport) int { return r.Failed }),
		number("commits in the log", func(r roundReport) int { return r.Commits }),
		number("acknowledged and lost", func(r roundReport) int { return r.Lost }),
		number("there twice", func(r roundReport) int { return r.Duplicated }),
		number("stale and accepted", func(r roundReport) int { return r.StaleAccepted }),
		number("refused and there", func(r roundReport) int { return r.RefusedButWritten }),
		{"pause at the promotion", func(r roundReport) string { return fmt.Sprintf("%d ms", r.PauseMS) }},
		{"pause behind SIGKILL", func(r roundReport) string { return orNone(r.KillPauseMS > 0, "%d ms", r.KillPauseMS) }},
		{"blue", func(r roundReport) string { return r.Blue.String() }},
		{"green", func(r roundReport) string {
			return fmt.Sprintf("%s, restarts: %d", tokenText(r.Green.Token), r.Green.Restarts)
		}},
	}
}

func (b blueReport) String() string {
	end := "did not end"
	if b.ExitCode != nil {
		end = fmt.Sprintf("exited %d", *b.ExitCode)
	}
	return fmt.Sprintf("%s, %s, restarts: %d", tokenText(b.Token), end, b.Restarts)
}

func tokenText(t *fence.Token) string {
	if t == nil {
		return "no token"
	}
	return t.String()
}

func orNone(there bool, format string, args ...any) string {
	if !there {
		return "-"
	}
	return fmt.Sprintf(format, args...)
}
