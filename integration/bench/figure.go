package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
)

// A figure is one line of the result. Times are in microseconds; a field that
// does not apply is zero.
type figure struct {
	Name    string  `json:"name"`
	Store   string  `json:"store"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Ops     float64 `json:"ops_s"`
	FloorUS float64 `json:"floor_us"` // the floor's median; at 64 workers, its time per operation
	Ratio   float64 `json:"ratio"`    // to the floor, of what the goal is about
	Goal    string  `json:"goal"`
	Met     bool    `json:"met"`
	Note    string  `json:"note,omitempty"`
}

// atMost and atLeast hold a figure against its goal.
func (f figure) atMost(have, goal float64, unit string) figure {
	f.Goal, f.Met = fmt.Sprintf("<= %g%s", goal, unit), have <= goal
	return f
}

func (f figure) atLeast(have, goal float64, unit string) figure {
	f.Goal, f.Met = fmt.Sprintf(">= %g%s", goal, unit), have >= goal
	return f
}

// rounded keeps three digits behind the point: more is noise.
func (f figure) rounded() figure {
	for _, v := range []*float64{&f.P50, &f.P99, &f.Ops, &f.FloorUS, &f.Ratio} {
		*v = math.Round(*v*1000) / 1000
	}
	return f
}

// table prints the figures for people.
func table(w io.Writer, figures []figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "store\tfigure\tp50 µs\tp99 µs\tops/s\tfloor µs\tratio\tgoal\tmet\t")
	for _, f := range figures {
		met := "yes"
		if !f.Met {
			met = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.1f\t%.0f\t%.2f\t%.2f\t%s\t%s\t%s\n",
			f.Store, f.Name, f.P50, f.P99, f.Ops, f.FloorUS, f.Ratio, f.Goal, met, f.Note)
	}
	_ = t.Flush() // standard output: nobody is left to tell
}

// writeLines writes the figures to a file, one JSON object a line.
func writeLines(path string, figures []figure) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	for _, fig := range figures {
		if err := enc.Encode(fig.rounded()); err != nil {
			_ = f.Close() // the first error says more
			return err
		}
	}
	return f.Close()
}
