package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fencepost/fencepost/fence"
)

// table lays rows out in columns.
func table(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// cell returns text that came out of the store as one cell of a table: nothing
// in it moves a terminal's cursor or breaks a line.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// A printable is an output for a terminal. Whatever is written to it, a name out of
// a store or an error that has one, arrives without a control character but tabs and
// line ends: others become \u001b and the like, which is also their form in JSON. One
// call of Write has whole characters.
type printable struct{ to io.Writer }

func (p printable) Write(text []byte) (int, error) {
	shown := make([]byte, 0, len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			shown = fmt.Appendf(shown, `\x%02x`, rest[0])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			shown = append(shown, rest[:size]...)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				shown = fmt.Appendf(shown, `\u%04x`, unit)
			}
		}
		rest = rest[size:]
	}
	if _, err := p.to.Write(shown); err != nil {
		return 0, err
	}
	return len(text), nil
}

// holder names who holds a token, without since when.
func holder(h fence.Holder) string {
	h.Since = time.Time{}
	return cell(h.String())
}

// when returns t in local time, and how long before now that is.
func when(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST") + " (" + age(now.Sub(t)) + ")"
}

// age says how long ago something was, in its largest unit. Clocks of two
// machines differ: what lies ahead is said so.
func age(d time.Duration) string {
	suffix := " ago"
	if d < 0 {
		d, suffix = -d, " ahead of this clock"
	}
	switch {
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s" + suffix
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m" + suffix
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h" + suffix
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d" + suffix
}
