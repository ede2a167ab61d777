package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/fencepost/fencepost/examples/kvserver/kv"
	"github.com/fencepost/fencepost/leader"
)

// standing says why this process does not lead, and who does, as in
//
//	(phase ready-to-promote): generation 2 leads since 2026-01-02T15:04:05Z
func standing(s leader.Status) string {
	text := fmt.Sprintf("(phase %s)", phaseName(s.Phase))
	if s.Leader == nil {
		return text + ": no leader was seen yet"
	}
	h := s.Leader.Holder
	text += fmt.Sprintf(": generation %v leads since %s", s.Leader.Token.Generation, h.Since.UTC().Format(time.RFC3339))
	if h.Name != "" {
		text += ": " + h.Name
	}
	return text
}

// info returns INFO's section Fencepost of a process that does not serve.
func info(s leader.Status) []kv.Field {
	fields := []kv.Field{
		{Name: "fencepost_phase", Value: phaseName(s.Phase)},
		{Name: "fencepost_generation", Value: s.Generation.String()},
		{Name: "fencepost_revision", Value: strconv.FormatUint(s.Revision, 10)},
		{Name: "fencepost_reason", Value: s.Reason},
	}
	if s.Token != nil {
		fields = append(fields, kv.Field{Name: "fencepost_token", Value: s.Token.String()})
	}
	if s.Leader != nil {
		fields = append(fields,
			kv.Field{Name: "fencepost_leader_token", Value: s.Leader.Token.String()},
			kv.Field{Name: "fencepost_leader", Value: s.Leader.Holder.String()})
	}
	return fields
}

// phaseName is the phase in INFO's manner: ready-to-promote. A process that
// leads, and doesn't serve yet or any more, is not called leading.
func phaseName(p leader.Phase) string {
	if p == leader.Leading {
		return "leading-not-serving"
	}
	var name strings.Builder
	for i, r := range p.String() {
		if unicode.IsUpper(r) && i > 0 {
			name.WriteByte('-')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return name.String()
}
