// Package errordoc writes docs/errors.md, and the table in docs/supervisors.md,
// out of the drivers' tables and the contract of exit statuses, so that the
// documents can't say anything else.
package errordoc

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

const head = `# What every error means

Made by ` + "`make docs`" + ` from the tables that the drivers themselves go by, and checked by a test: do not edit.
` + "`fencepost explain`" + ` prints the same, one entry at a time.

**Do** is the disposition, with the exit status of a process that ends because of it. *none*: the error goes back to whoever made the call, and
the process goes on. *retry*: tried again inside, with growing delays; the process ends when the budget is spent. *halt*: the process ends and
starts anew. *panic*: somebody must look.

**If sent** says what may have become of a write whose commit was sent when the error arose; before that, nothing can have landed. *not applied*:
it never will land. *unknown*: it may have landed, or may land later. No write is sent again blindly: the same commit goes out under the same
condition, so that one of the two lands at most.

An error that no list here has goes by its class, where its standard has classes; what it leaves of a write is then unknown. What has no class
either is a reason to panic, and of unknown outcome.
`

// Write writes the document.
func Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString(head)
	exits(&b)
	for _, t := range storeurl.Tables() {
		fmt.Fprintf(&b, "\n## %s\n\nAn error that is several things at once is what the first list here says of it.\n", t.Store)
		for _, f := range t.Families {
			family(&b, f)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func exits(b *strings.Builder) {
	b.WriteString("\n## Exit statuses\n")
	for _, m := range exitcodes.Meanings() {
		codes := fmt.Sprint(m.Code)
		if m.Last != m.Code {
			codes += fmt.Sprintf(" to %d", m.Last)
		}
		fmt.Fprintf(b, "\n### %s: %s\n\n%s\n\n| disposition | %s |\n|---|---|\n| who ends with it | %s |\n", codes, m.Name, m.Means, m.Disposition, cell(m.Producer))
		for _, s := range m.Supervisors {
			fmt.Fprintf(b, "| %s | %s |\n", cell(s.Supervisor), cell(s.String()))
		}
	}
}

// The page of the supervisors is written by hand, but for its table.
const (
	tableBegins = "<!-- what exitcodes.Meanings says, by make docs -->\n"
	tableEnds   = "<!-- end -->\n"
)

// Supervisors returns docs/supervisors.md with its table made anew: what each
// supervisor does with each exit status that a server of its own ends with.
func Supervisors(page string) (string, error) {
	before, rest, begins := strings.Cut(page, tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", fmt.Errorf("the page has no place for its table: want %q and then %q", tableBegins, tableEnds)
	}
	return before + tableBegins + whatFollows() + tableEnds + after, nil
}

func whatFollows() string {
	all := exitcodes.Meanings()
	heads := []string{"ends with", "because"}
	for _, s := range all[0].Supervisors {
		heads = append(heads, cell(s.Supervisor))
	}
	rows := [][]string{heads, slices.Repeat([]string{"---"}, len(heads))}
	for _, m := range all {
		if strings.HasPrefix(m.Producer, "fencepost run") {
			continue // the table is about what run, and the others, start
		}
		code := fmt.Sprint(m.Code)
		if m.Last != m.Code {
			code = m.Name
		}
		row := []string{code, cell(m.Because())}
		for _, s := range m.Supervisors {
			row = append(row, cell(s.Does))
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

func family(b *strings.Builder, f driver.Family) {
	fmt.Fprintf(b, "\n### %s\n\n%d entries; the list is that of %s.\n", f.Name, len(f.Entries), f.Source)
	if f.Note != "" {
		fmt.Fprintf(b, "%s\n", f.Note)
	}
	b.WriteString("\n| Code | Name | Do | If sent | Why | What to do |\n|---|---|---|---|---|---|\n")
	for _, e := range f.Entries {
		do := doing(e.Before)
		if after := doing(e.After); after != do {
			do += ", once sent " + after
		}
		fmt.Fprintf(b, "| %s | %s | %s | %v | %s | %s |\n", cell(e.Code), cell(e.Name), do, e.After.Outcome, cell(e.Why), cell(e.After.Remedy))
	}
}

func doing(c driver.Class) string {
	if c.Disposition == exitcodes.None {
		return c.Disposition.String()
	}
	return fmt.Sprintf("%v (%d)", c.Disposition, (&driver.Error{Class: c}).ExitCode())
}

// cell returns text as one cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "\n", " ").Replace(text)
}
