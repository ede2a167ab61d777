package driver

import (
	"context"
	"fmt"
	"strconv"
)

// A Prober is a Store that can say whether it is set up to keep what it
// acknowledges.
type Prober interface {
	// Probe looks at what commits and claims will rest on: settings that
	// could lose an acknowledged commit, rights, room, how long a sync
	// takes. It writes nothing to database or log. The findings are in the
	// order in which a person reads them; what is well is among them. An
	// error means that the store could not be asked.
	Probe(ctx context.Context) ([]Finding, error)
}

// A RiskTeller is a Store that can say at little cost what could lose a commit
// after it was acknowledged. Every claim that makes a holder asks it, once.
type RiskTeller interface {
	// Risks returns what [Prober] would say of that, without what is well. It
	// measures nothing and writes nothing. What it is not allowed to ask is
	// left out.
	Risks(ctx context.Context) ([]Finding, error)
}

// A Finding is the answer to one question that was asked before a deploy.
type Finding struct {
	Name   string `json:"name"` // what was asked, in one or two words, the same in every version
	Grade  Grade  `json:"grade"`
	Detail string `json:"detail"`           // what was found
	Remedy string `json:"remedy,omitempty"` // what to do; empty where it is well
}

// A Grade says what a finding means for a deploy. Its text form is ok, warn or
// fail.
type Grade uint8

const (
	Fine    Grade = iota // nothing to do
	Warning              // somebody should know; it stops nothing
	Failure              // the deploy would fail, or could lose data
)

func (g Grade) String() string {
	switch g {
	case Fine:
		return "ok"
	case Warning:
		return "warn"
	case Failure:
		return "fail"
	}
	return fmt.Sprintf("grade %d", uint8(g))
}

// MarshalText returns the text form.
func (g Grade) MarshalText() ([]byte, error) {
	if g > Failure {
		return nil, fmt.Errorf("driver: no such grade: %d", uint8(g))
	}
	return []byte(g.String()), nil
}

// UnmarshalText reads the text form.
func (g *Grade) UnmarshalText(text []byte) error {
	for _, known := range []Grade{Fine, Warning, Failure} {
		if known.String() == string(text) {
			*g = known
			return nil
		}
	}
	return fmt.Errorf("driver: not a grade: %q, want ok, warn or fail", text)
}

// A HostTeller is a Store that may be kept by several servers.
type HostTeller interface {
	// Hosts looks at every server that the store's address names, in that
	// order. It returns soon, whether or not they answer, and writes nothing.
	Hosts(ctx context.Context) ([]Host, error)
}

// A Host is one server as it was found. What is not known of it is zero.
type Host struct {
	Address   string `json:"address"`
	Reachable bool   `json:"reachable"`
	Role      string `json:"role"`     // primary or standby
	Timeline  uint32 `json:"timeline"` // of its history; a standby's may be a lower one for a while
	System    string `json:"system"`   // the identifier of the cluster to which it belongs
	Grade     Grade  `json:"grade"`
	Problem   string `json:"problem,omitempty"` // why it can't be reached, or what is wrong with it
	Remedy    string `json:"remedy,omitempty"`
}

// String describes a host in one line.
func (h Host) String() string {
	text := h.Address + ": "
	if !h.Reachable {
		return text + "not reached: " + h.Problem
	}
	text += h.Role + ", timeline "
	if h.Timeline == 0 {
		text += "unknown"
	} else {
		text += strconv.FormatUint(uint64(h.Timeline), 10)
	}
	if h.System != "" {
		text += ", system " + h.System
	}
	if h.Problem != "" {
		text += ": " + h.Problem
	}
	return text
}
