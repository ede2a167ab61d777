package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

const (
	askPatience    = 300 * time.Millisecond // for the answers of all members on this host
	mostQuestioned = 100                    // members that are asked
	mostShown      = 50                     // members that are shown to people
	longestReason  = 80                     // of a member, for people
)

// ask asks the members on this host how they are now. One that answers was heard,
// however old its note is.
func (l *look) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	all := slices.Concat(l.members.Members, l.members.Unheard)
	asked := make([]bool, len(all))
	var wg sync.WaitGroup
	for i := range min(len(all), mostQuestioned) {
		wg.Go(func() { all[i], asked[i] = all[i].Ask(ctx) })
	}
	wg.Wait()
	heard := len(l.members.Members)
	l.answered, l.members.Members, l.members.Unheard = map[string]bool{}, nil, nil
	for i, m := range all {
		l.answered[m.ID] = asked[i]
		if i < heard || asked[i] {
			l.members.Members = append(l.members.Members, m)
		} else {
			l.members.Unheard = append(l.members.Unheard, m)
		}
	}
}

// A member is a process of the service in JSON. Its shape is stable.
type member struct {
	Name       string                `json:"name"`
	Build      string                `json:"build"`
	Generation generation.Generation `json:"generation"`
	Phase      string                `json:"phase"`
	Since      time.Time             `json:"since"`
	Ready      bool                  `json:"ready"`
	Serving    bool                  `json:"serving"`
	Reason     string                `json:"reason"`
	Token      *fence.Token          `json:"token"`
	Revision   uint64                `json:"revision"`
	Behind     *uint64               `json:"behind"`   // commits that it has not read; null: it could not be asked
	Answered   bool                  `json:"answered"` // all of this is as of now
	Age        float64               `json:"age_seconds"`
	Admin      string                `json:"admin"`
	Peer       string                `json:"peer"`
	ID         string                `json:"id"`
}

func membersOf(l look, now time.Time) []member {
	all := []member{}
	for _, m := range l.members.Members {
		is := member{
			ID: m.ID, Name: m.Name, Build: m.Build, Generation: m.Generation, Phase: m.Phase, Since: m.Since, Ready: m.Ready, Serving: m.Serving,
			Reason: m.Reason, Token: m.Token, Revision: m.Revision, Answered: l.answered[m.ID], Age: now.Sub(m.At).Seconds(), Admin: m.Admin, Peer: m.Peer,
		}
		if is.Answered {
			behind := l.head.Revision - min(m.Revision, l.head.Revision)
			is.Behind = &behind
		}
		all = append(all, is)
	}
	return all
}

// printMembers lists the processes of the service, if there are any.
func (s status) printMembers(w io.Writer, now time.Time) error {
	if len(s.Members) > 0 {
		rows := [][]string{{"MEMBER", "GENERATION", "BUILD", "PHASE", "SINCE", "READY", "BEHIND", "REASON"}}
		for _, m := range s.Members[:min(len(s.Members), mostShown)] {
			rows = append(rows, m.row(now))
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	var more []string
	if n := len(s.Members) - mostShown; n > 0 {
		more = append(more, fmt.Sprintf("%d more members are not shown", n))
	}
	if s.More {
		more = append(more, fmt.Sprintf("there are more than %d notes of members", leader.MaxMembers))
	}
	if s.Unheard > 0 {
		more = append(more, fmt.Sprintf("left out, as their notes are three leases old by this clock: %d", s.Unheard))
	}
	if s.Ended > 0 {
		more = append(more, fmt.Sprintf("left out, as their processes on this host have ended: %d", s.Ended))
	}
	for _, line := range more {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (m member) row(now time.Time) []string {
	ready := "no"
	switch {
	case m.Serving:
		ready = "serves"
	case m.Ready:
		ready = "yes"
	}
	behind := fmt.Sprintf("was at %d %s", m.Revision, age(time.Duration(m.Age*float64(time.Second))))
	if m.Behind != nil {
		behind = strconv.FormatUint(*m.Behind, 10)
	}
	return []string{
		cell(m.Name), m.Generation.String(), cell(m.Build), cell(m.Phase), age(now.Sub(m.Since)), ready, behind, short(cell(m.Reason), longestReason),
	}
}
