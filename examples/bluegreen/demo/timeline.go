package demo

import (
	"fmt"
	"strings"
	"time"
)

// A mark is an event on the timeline.
type mark struct {
	at    time.Time
	glyph byte
}

const (
	widest   = 100                    // columns of a timeline
	bucket   = 100 * time.Millisecond // a column's time is a multiple of it
	rowTitle = "%-12s"
	shades   = " .:-=+*#%@" // from no write to the most

	legend = `
  # leads   - ready, waits   . reads along   + claims   z stopped   p parked   _ ends   (blank) not there
  P promote   c claim   K SIGKILL   S SIGSTOP   C SIGCONT   writes: from none to the most, ` + "`" + shades + "`" + `
`
)

// A scale maps a time to a column.
type scale struct {
	began   time.Time
	column  time.Duration
	columns int
}

func newScale(began, ended time.Time) scale {
	length := max(ended.Sub(began), bucket)
	column := bucket
	for length > widest*column {
		column += bucket
	}
	return scale{began: began, column: column, columns: int((length + column - 1) / column)}
}

// at returns the column of a time, the nearest one where it has none.
func (s scale) at(t time.Time) int {
	return max(0, min(s.columns-1, int(t.Sub(s.began)/s.column)))
}

// timeline draws the round: a row for each process, one for the writes that were
// acknowledged, one for the events.
func (r *round) timeline() string {
	s := newScale(r.began, r.ended)
	marks := r.marks
	for _, c := range r.found.claims {
		marks = append(marks, mark{at: c.Holder.Since, glyph: 'c'})
	}
	var acked []time.Time
	for _, w := range r.ledger.all() {
		if w.fate == acknowledged {
			acked = append(acked, w.at)
		}
	}
	writes, most := s.sparkline(acked)
	var text strings.Builder
	line := func(title, row string) {
		text.WriteString(strings.TrimRight(fmt.Sprintf("  "+rowTitle+"%s", title, row), " ") + "\n")
	}
	line("seconds", s.ruler())
	for _, p := range r.running() {
		line(fmt.Sprintf("%s g%d", p.name, p.generation), s.phases(p.watch.sights()))
	}
	line("writes", writes)
	line("", s.events(marks))
	fmt.Fprintf(&text, "  one column is %d ms; at most %d acknowledged writes in 100 ms\n", s.column.Milliseconds(), most)
	return text.String()
}

// ruler numbers the seconds.
func (s scale) ruler() string {
	row := blank(s.columns + 3)
	step := time.Second
	for step < 5*s.column {
		step += time.Second
	}
	for d := time.Duration(0); int(d/s.column) < s.columns; d += step {
		copy(row[d/s.column:], fmt.Sprintf("%d", int(d.Seconds())))
	}
	return string(row)
}

// phases draws what a process was seen to be.
func (s scale) phases(seen []sight) string {
	row := blank(s.columns)
	for i, from := range seen {
		end := s.columns
		if i+1 < len(seen) {
			end = s.at(seen[i+1].at)
		}
		for c := s.at(from.at); c < max(end, s.at(from.at)+1); c++ {
			row[c] = glyphOf(from.what)
		}
	}
	return string(row)
}

func glyphOf(what string) byte {
	switch what {
	case seenDown:
		return ' '
	case seenSilent:
		return 'z'
	case seenParked:
		return 'p'
	case seenLeader:
		return '#'
	case "Initializing", "CatchingUp":
		return '.'
	case "ReadyToPromote":
		return '-'
	case "Promoting":
		return '+'
	default:
		return '_' // the phases in which a process ends
	}
}

// sparkline draws how many of the times fall into each column, and returns the
// most that fall into 100 ms, on the average of a column.
func (s scale) sparkline(times []time.Time) (row string, most int) {
	counts := make([]int, s.columns)
	top := 0
	for _, t := range times {
		c := s.at(t)
		counts[c]++
		top = max(top, counts[c])
	}
	shaded := blank(s.columns)
	for c, n := range counts {
		if n > 0 {
			shaded[c] = shades[1+(n*(len(shades)-2)+top-1)/top]
		}
	}
	return string(shaded), top / int(s.column/bucket)
}

// events puts each mark at its time, or at the next free column behind.
func (s scale) events(marks []mark) string {
	row := blank(s.columns + len(marks))
	for _, m := range marks {
		c := s.at(m.at)
		for row[c] != ' ' {
			c++
		}
		row[c] = m.glyph
	}
	return string(row)
}

func blank(n int) []byte { return []byte(strings.Repeat(" ", n)) }
