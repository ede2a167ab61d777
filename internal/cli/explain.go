package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func (a *app) explainCommand() *cobra.Command {
	var word string
	run := a.action(func(context.Context) error { return a.explain(word) })
	return &cobra.Command{
		Use:   "explain [--store postgres|etcd|sqlite] [CODE]",
		Short: "Say what an exit status, or an error of a store, means",
		Long: `Explain says what a process must do about an error of a store, before and after
its commit was sent, whether the write may have landed, and why; it reads the
table that the driver itself goes by. CODE is a code or a name, such as 40001,
unique_violation, SQLITE_BUSY, ErrNoSpace or ECONNREFUSED; a code that no list
has is explained by its class. Without CODE it prints the whole table.

Without --store, CODE is an exit status, such as 166, or else whatever any of
the stores calls so. It asks no server, and writes nothing. With --json it
prints an array.`,
		Example: `  fencepost explain 166
  fencepost explain --store postgres 40001
  fencepost explain 'etcdserver: no leader'
  fencepost explain --store sqlite --json | jq -r '.[] | select(.after.outcome == "unknown") | .name'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				word = args[0]
			}
			return run(cmd, args)
		},
	}
}

func (a *app) explain(word string) error {
	tables := storeurl.Tables()
	if a.store != "" {
		table, err := storeurl.Table(a.store)
		if err != nil {
			return err
		}
		tables = []driver.Table{table}
	} else if codes, ok := exitCodes(word); ok {
		return a.showExits(codes, word != "")
	}
	if word == "" {
		return a.showEntries(everything(tables), false)
	}
	var found []explained
	for _, t := range tables {
		for _, m := range t.Find(word) {
			if m.Basis == driver.Listed || a.store != "" {
				found = append(found, explainedOf(t, m))
			}
		}
	}
	if len(found) == 0 {
		return exitcodes.WithCode(fmt.Errorf("%s is neither code nor name of any error: see the list of fencepost explain --store postgres, etcd or sqlite", strconv.Quote(word)), exitcodes.Usage)
	}
	return a.showEntries(found, true)
}

// An explained is one entry of a driver's table. Its shape in JSON is stable.
type explained struct {
	Store  string     `json:"store"`
	Family string     `json:"family"`
	Code   string     `json:"code"`
	Name   string     `json:"name"`
	Also   []string   `json:"also"`
	Basis  string     `json:"basis"` // entry, class or nothing
	Class  string     `json:"class"` // the code that speaks for this one; empty where it has an entry
	Before consequent `json:"before"`
	After  consequent `json:"after"`
	Why    string     `json:"why"`
	Remedy string     `json:"remedy"`
	Note   string     `json:"note"`
}

// A consequent is what follows from an error, before or after the commit was
// sent.
type consequent struct {
	Disposition string          `json:"disposition"`
	ExitCode    *exitcodes.Code `json:"exit_code"` // null where the process goes on
	Outcome     string          `json:"outcome"`
}

func consequentOf(c driver.Class) consequent {
	f := consequent{Disposition: c.Disposition.String(), Outcome: c.Outcome.String()}
	if c.Disposition != exitcodes.None {
		code := (&driver.Error{Class: c}).ExitCode()
		f.ExitCode = &code
	}
	return f
}

func explainedOf(t driver.Table, m driver.Meaning) explained {
	e := explained{
		Store: t.Store, Family: m.Family, Code: m.Code, Name: m.Entry.Name, Also: append([]string{}, m.Entry.Also...), Basis: m.Basis.String(),
		Before: consequentOf(m.Entry.Before), After: consequentOf(m.Entry.After), Why: m.Entry.Why, Remedy: remedyOf(m.Entry.After),
	}
	if m.Basis == driver.ByClass {
		e.Class = m.Entry.Code
	}
	for _, f := range t.Families {
		if f.Name == m.Family {
			e.Note = f.Note
		}
	}
	return e
}

// remedyOf says what to do also where the table leaves it to the disposition.
func remedyOf(c driver.Class) string {
	switch {
	case c.Remedy != "":
		return c.Remedy
	case c.Disposition == exitcodes.None:
		return "nothing to the process: the error goes back to whoever made the call"
	case c.Disposition == exitcodes.Retry:
		return "nothing: it passes, and is tried again with growing delays; if it lasts, look at the store"
	}
	return "look at the store"
}

func everything(tables []driver.Table) (all []explained) {
	for _, t := range tables {
		for _, f := range t.Families {
			for _, e := range f.Entries {
				all = append(all, explainedOf(t, driver.Meaning{Family: f.Name, Code: e.Code, Entry: e}))
			}
		}
	}
	return all
}

func (a *app) showEntries(all []explained, inFull bool) error {
	return a.show(all, func(w io.Writer) error {
		if inFull {
			return printEntries(w, all)
		}
		return printList(w, all)
	})
}

// The widths of the printed columns: a line has 100 at most.
const (
	lineWidth = 100
	codeWidth = 32
	nameWidth = 34
)

func printList(w io.Writer, all []explained) error {
	rows := [][]string{}
	family := ""
	for _, e := range all {
		if e.Family != family {
			if err := table(w, rows); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%s%s: %s\n", strings.Repeat("\n", min(len(family), 1)), e.Store, e.Family); err != nil {
				return err
			}
			family, rows = e.Family, [][]string{{"CODE", "NAME", "DO", "EXIT", "IF SENT"}}
		}
		rows = append(rows, []string{short(e.Code, codeWidth), short(e.Name, nameWidth), e.After.Disposition, exitText(e.After), e.After.Outcome})
	}
	return table(w, rows)
}

func exitText(c consequent) string {
	if c.ExitCode == nil {
		return "-"
	}
	return fmt.Sprint(*c.ExitCode)
}

func short(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return text
}

func printEntries(w io.Writer, all []explained) error {
	for i, e := range all {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := e.print(w); err != nil {
			return err
		}
	}
	return nil
}

func (e explained) print(w io.Writer) error {
	title := fmt.Sprintf("%s %s %s", e.Store, e.Family, e.Code)
	if e.Name != "" && e.Basis == driver.Listed.String() {
		title += "  " + e.Name
	}
	rows := [][2]string{}
	switch e.Basis {
	case driver.ByClass.String():
		rows = append(rows, [2]string{"not listed", fmt.Sprintf("by its class, which is %s (%s); what it leaves of a write is not known", e.Class, e.Name)})
	case driver.Unlisted.String():
		rows = append(rows, [2]string{"not listed", "nor is its class, so that nobody knows what it means"})
	}
	rows = append(rows,
		[2]string{"before the commit was sent", e.Before.text()},
		[2]string{"after it was sent", e.After.text() + "; the write: " + e.After.Outcome},
		[2]string{"why", e.Why},
		[2]string{"what to do", e.Remedy},
		[2]string{"note", e.Note},
		[2]string{"also called", strings.Join(e.Also, ", ")})
	return prose(w, title, rows)
}

func (c consequent) text() string {
	if c.ExitCode == nil {
		return "returns to the caller; the process goes on"
	}
	return fmt.Sprintf("%s, exit status %d", c.Disposition, *c.ExitCode)
}

// prose prints a title and, below it, texts with their names in a margin, in
// lines that fit.
func prose(w io.Writer, title string, rows [][2]string) error {
	margin := 0
	for _, r := range rows {
		margin = max(margin, len(r[0])+4)
	}
	text := strings.Join(wrapped(title, lineWidth), "\n") + "\n"
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		name := r[0]
		for _, line := range wrapped(r[1], lineWidth-margin) {
			text += fmt.Sprintf("  %-*s%s\n", margin-2, name, line)
			name = ""
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

// wrapped breaks text into lines of width at most, where its words allow it.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
