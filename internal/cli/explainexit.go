package cli

import (
	"fmt"
	"io"
	"strconv"

	"github.com/fencepost/fencepost/exitcodes"
)

// exitCodes returns the exit statuses that a word means: all of them for none.
func exitCodes(word string) ([]exitcodes.Meaning, bool) {
	if word == "" {
		return exitcodes.Meanings(), true
	}
	code, err := strconv.Atoi(word)
	if err != nil {
		return nil, false
	}
	m, ok := exitcodes.MeaningOf(exitcodes.Code(code))
	if m.Code != m.Last {
		m.Code, m.Last = exitcodes.Code(code), exitcodes.Code(code)
	}
	return []exitcodes.Meaning{m}, ok
}

// An exit is the meaning of an exit status in JSON. Its shape is stable.
type exit struct {
	Code        exitcodes.Code    `json:"code"`
	Last        exitcodes.Code    `json:"last"` // of a range of codes
	Name        string            `json:"name"`
	Disposition string            `json:"disposition"`
	Means       string            `json:"means"`
	Producer    string            `json:"producer"`
	Supervisors map[string]string `json:"supervisors"`
}

func exitOf(m exitcodes.Meaning) exit {
	e := exit{Code: m.Code, Last: m.Last, Name: m.Name, Disposition: m.Disposition, Means: m.Means, Producer: m.Producer, Supervisors: map[string]string{}}
	for _, s := range m.Supervisors {
		e.Supervisors[s.Supervisor] = s.String()
	}
	return e
}

func (a *app) showExits(all []exitcodes.Meaning, inFull bool) error {
	exits := make([]exit, 0, len(all))
	for _, m := range all {
		exits = append(exits, exitOf(m))
	}
	return a.show(exits, func(w io.Writer) error {
		if inFull {
			return printExit(w, all[0])
		}
		rows := [][]string{{"CODE", "NAME", "DISPOSITION", "FENCEPOST RUN"}}
		for _, m := range all {
			rows = append(rows, []string{rangeText(m), m.Name, m.Disposition, short(m.Supervisors[0].Does, lineWidth-50)})
		}
		return table(w, rows)
	})
}

func rangeText(m exitcodes.Meaning) string {
	if m.Code == m.Last {
		return fmt.Sprint(m.Code)
	}
	return fmt.Sprintf("%d-%d", m.Code, m.Last)
}

func printExit(w io.Writer, m exitcodes.Meaning) error {
	rows := [][2]string{{"means", m.Means}, {"disposition", m.Disposition}, {"who ends with it", m.Producer}}
	for _, s := range m.Supervisors {
		rows = append(rows, [2]string{s.Supervisor, s.String()})
	}
	return prose(w, fmt.Sprintf("exit status %d  %s", m.Code, m.Name), rows)
}
