package httpfence

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fencepost/fencepost/fence"
)

// contentType is that of RFC 9457.
const contentType = "application/problem+json"

// kindPrefix begins the type of each problem.
const kindPrefix = "urn:fencepost:guard:"

// The kinds of a problem.
const (
	kindStale       = "stale"
	kindMissing     = "missing"
	kindMalformed   = "malformed"
	kindNeverIssued = "never-issued"
	kindUnverified  = "unverified"
	kindDraining    = "draining"
	kindNotSaved    = "not-saved"
	kindResource    = "resource"
	kindTooMany     = "too-many-resources"
	kindUnavailable = "unavailable"
)

// kinds lists the statuses, and the error that each kind stands for.
var kinds = map[string]struct {
	status int
	err    error
}{
	kindStale:       {http.StatusPreconditionFailed, fence.ErrFenced},
	kindMissing:     {http.StatusPreconditionRequired, fence.ErrMissing},
	kindMalformed:   {http.StatusBadRequest, fence.ErrMalformed},
	kindNeverIssued: {http.StatusForbidden, fence.ErrNeverIssued},
	kindUnverified:  {http.StatusServiceUnavailable, fence.ErrUnverified},
	kindDraining:    {http.StatusServiceUnavailable, fence.ErrDraining},
	kindNotSaved:    {http.StatusServiceUnavailable, fence.ErrNotSaved},
	kindResource:    {http.StatusBadRequest, fence.ErrResource},
	kindTooMany:     {http.StatusInsufficientStorage, fence.ErrTooManyResources},
	kindUnavailable: {http.StatusServiceUnavailable, fence.ErrGateClosed},
}

// A problem is the body of a refusal.
type problem struct {
	Type     string        `json:"type"`
	Title    string        `json:"title"`
	Status   int           `json:"status"`
	Resource string        `json:"resource,omitempty"`
	Held     string        `json:"held,omitempty"`    // as it was given, at most 64 bytes
	Current  string        `json:"current,omitempty"` // of the register
	Holder   *fence.Holder `json:"holder,omitempty"`  // of Current
	Outcome  string        `json:"outcome"`           // notApplied or unknown
}

const (
	notApplied = "not applied"
	unknown    = "unknown" // the handler had begun
)

// problemOf says what err, of a Gate, means for a client. It tells nothing of what
// the gate's catalog or disk said.
func problemOf(err error, resource, outcome string) problem {
	kind := kindOf(err)
	p := problem{Type: kindPrefix + kind, Status: kinds[kind].status, Resource: clip(resource, fence.MaxResourceName), Outcome: outcome}
	var stale *fence.Error
	var token *fence.TokenError
	switch {
	case errors.As(err, &stale):
		p.Title = "a newer token was seen: stop writing"
		p.Held, p.Current, p.Holder = stale.Held.String(), stale.Current.String(), bounded(stale.By)
	case errors.As(err, &token):
		p.Title, p.Held = kinds[kind].err.Error(), clip(token.Token, maxShown)
	default:
		p.Title = kinds[kind].err.Error()
	}
	return p
}

// kindOf returns the kind of a Gate's error, by its type first: what an undecided
// guard was told by others decides nothing.
func kindOf(err error) string {
	of := []string{kindResource, kindTooMany}
	var stale *fence.Error
	var token *fence.TokenError
	var undecided *fence.UndecidedError
	switch {
	case errors.As(err, &undecided):
		of = []string{kindDraining, kindNotSaved, kindUnverified}
	case errors.As(err, &token):
		of = []string{kindMissing, kindMalformed, kindNeverIssued}
	case errors.As(err, &stale):
		return kindStale
	}
	for _, kind := range of {
		if errors.Is(err, kinds[kind].err) {
			return kind
		}
	}
	return kindUnavailable
}

// write answers with p.
func (p problem) write(w http.ResponseWriter) {
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Trailer", "Transfer-Encoding"} {
		h.Del(name) // of a handler that gave up
	}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	text, err := json.Marshal(p)
	if err != nil { // the holder's time can't be written
		p.Holder = nil
		text, _ = json.Marshal(p)
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(text) // nobody is left to be told
}

const (
	maxShown = 64  // bytes of a token that a stranger gave
	maxWho   = 256 // bytes of each text about a holder
)

func bounded(h fence.Holder) *fence.Holder {
	h.Name, h.Address, h.Build = clip(h.Name, maxWho), clip(h.Address, maxWho), clip(h.Build, maxWho)
	return &h
}

// clip returns at most n bytes of s, and no part of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// guardName names a guard as far as what a server sent can be shown.
func guardName(resource string) string {
	quoted := strconv.Quote(clip(resource, fence.MaxResourceName))
	return strings.TrimSpace("http " + quoted[1:len(quoted)-1])
}

// refusal returns the error that p stands for.
func (p problem) refusal() error {
	kind := strings.TrimPrefix(p.Type, kindPrefix)
	guard, err := guardName(p.Resource), kinds[kind].err
	switch kind {
	case kindStale:
		held, _ := fence.Parse(p.Held)
		current, bad := fence.Parse(p.Current)
		if bad != nil || held.Compare(current) >= 0 {
			return nil // no guard of ours says so
		}
		stale := &fence.Error{Held: held, Current: current, Guard: guard}
		if p.Holder != nil {
			stale.By = *bounded(*p.Holder)
		}
		return stale
	case kindMissing, kindMalformed, kindNeverIssued:
		return &fence.TokenError{Guard: guard, Token: clip(p.Held, maxShown), Err: err}
	case kindUnverified, kindDraining, kindNotSaved, kindUnavailable:
		return &fence.UndecidedError{Guard: guard, Err: err}
	default:
		return fmt.Errorf("%s: %w", guard, err)
	}
}
