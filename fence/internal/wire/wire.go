// Package wire is what the guards of requests answer, whatever the protocol: what a
// Gate's error is for a client, and which error the client makes of it again. What
// comes from the other side is bounded, and never believed further than a hint is.
package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fencepost/fencepost/fence"
)

// A Kind says what a refusal is for.
type Kind string

// The kinds of refusals. They are part of the protocol, and never renamed.
const (
	Stale            Kind = "stale"
	Missing          Kind = "missing"
	Malformed        Kind = "malformed"
	NeverIssued      Kind = "never-issued"
	Unsigned         Kind = "unsigned"
	Unverified       Kind = "unverified"
	Draining         Kind = "draining"
	NotSaved         Kind = "not-saved"
	Resource         Kind = "resource"
	TooManyResources Kind = "too-many-resources"
	Unavailable      Kind = "unavailable"
)

// means is the error that each kind stands for.
var means = map[Kind]error{
	Stale: fence.ErrFenced, Missing: fence.ErrMissing, Malformed: fence.ErrMalformed, NeverIssued: fence.ErrNeverIssued,
	Unsigned:   fence.ErrUnsigned,
	Unverified: fence.ErrUnverified, Draining: fence.ErrDraining, NotSaved: fence.ErrNotSaved,
	Resource: fence.ErrResource, TooManyResources: fence.ErrTooManyResources, Unavailable: fence.ErrGateClosed,
}

// The outcomes of a request that was refused.
const (
	NotApplied = "not applied"
	Unknown    = "unknown" // its handler had begun
)

const (
	maxToken = 64  // bytes that are shown of a token
	maxWho   = 256 // bytes of each text about a holder
)

// An Answer is a refusal.
type Answer struct {
	Kind     Kind
	Resource string
	Held     string        // as it was given, at most 64 bytes
	Current  string        // of the register; empty unless Stale
	Holder   *fence.Holder // of Current; nil if it isn't known
	Outcome  string
}

// Of says what err, of a Gate, means for a client. It tells nothing of what the
// gate's catalog or disk said.
func Of(err error, resource, outcome string) Answer {
	a := Answer{Kind: kindOf(err), Resource: clip(resource, fence.MaxResourceName), Outcome: outcome}
	var stale *fence.Error
	var token *fence.TokenError
	switch {
	case a.Kind == Stale && errors.As(err, &stale):
		a.Held, a.Current, a.Holder = stale.Held.String(), stale.Current.String(), bounded(stale.By)
	case errors.As(err, &token):
		a.Held = clip(token.Token, maxToken)
	}
	return a
}

// kindOf returns the kind of a Gate's error, by its type first: what an undecided
// guard was told by others decides nothing.
func kindOf(err error) Kind {
	of := []Kind{Resource, TooManyResources}
	var stale *fence.Error
	var token *fence.TokenError
	var undecided *fence.UndecidedError
	switch {
	case errors.As(err, &undecided):
		of = []Kind{Draining, NotSaved, Unverified}
	case errors.As(err, &token):
		of = []Kind{Missing, Malformed, NeverIssued, Unsigned}
	case errors.As(err, &stale):
		return Stale
	}
	for _, kind := range of {
		if errors.Is(err, means[kind]) {
			return kind
		}
	}
	return Unavailable
}

// Title says in words what the answer is for.
func (a Answer) Title() string {
	if a.Kind == Stale {
		return "a newer token was seen: stop writing"
	}
	return means[a.Kind].Error()
}

// Err returns the error that an answer of a server over protocol stands for, or nil
// if no guard answers so.
func (a Answer) Err(protocol string) error {
	guard := guardName(protocol, a.Resource)
	switch err := means[a.Kind]; a.Kind {
	case Stale:
		held, _ := fence.Parse(a.Held)
		current, bad := fence.Parse(a.Current)
		if bad != nil || held.Compare(current) >= 0 {
			return nil
		}
		stale := &fence.Error{Held: held, Current: current, Guard: guard}
		if a.Holder != nil {
			stale.By = *bounded(*a.Holder)
		}
		return stale
	case Missing, Malformed, NeverIssued, Unsigned:
		return &fence.TokenError{Guard: guard, Token: clip(a.Held, maxToken), Err: err}
	case Unverified, Draining, NotSaved, Unavailable:
		return &fence.UndecidedError{Guard: guard, Err: err}
	case Resource, TooManyResources:
		return fmt.Errorf("%s: %w", guard, err)
	default:
		return nil
	}
}

// Refusal returns the refusal of a guard that err holds, or nil.
func Refusal(err error) error {
	var stale *fence.Error
	var token *fence.TokenError
	var undecided *fence.UndecidedError
	switch {
	case errors.As(err, &undecided):
		return undecided
	case errors.As(err, &token):
		return token
	case errors.As(err, &stale) && stale.Guard != "":
		return stale
	}
	return nil
}

// guardName names a guard as far as what a server sent can be shown.
func guardName(protocol, resource string) string {
	quoted := strconv.Quote(clip(resource, fence.MaxResourceName))
	return strings.TrimSpace(protocol + " " + quoted[1:len(quoted)-1])
}

func bounded(h fence.Holder) *fence.Holder {
	h.Name, h.Address, h.Build = clip(h.Name, maxWho), clip(h.Address, maxWho), clip(h.Build, maxWho)
	return &h
}

// clip returns at most n bytes of s, as valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}
