package httpfence

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/internal/wire"
)

// contentType is that of RFC 9457.
const contentType = "application/problem+json"

// kindPrefix begins the type of each problem.
const kindPrefix = "urn:fencepost:guard:"

// statuses lists the status of each kind.
var statuses = map[wire.Kind]int{
	wire.Stale:            http.StatusPreconditionFailed,
	wire.Missing:          http.StatusPreconditionRequired,
	wire.Malformed:        http.StatusBadRequest,
	wire.NeverIssued:      http.StatusForbidden,
	wire.Unsigned:         http.StatusForbidden,
	wire.Unverified:       http.StatusServiceUnavailable,
	wire.Draining:         http.StatusServiceUnavailable,
	wire.NotSaved:         http.StatusServiceUnavailable,
	wire.Unavailable:      http.StatusServiceUnavailable,
	wire.Resource:         http.StatusBadRequest,
	wire.TooManyResources: http.StatusInsufficientStorage,
}

// A problem is the body of a refusal.
type problem struct {
	Type     string        `json:"type"`
	Title    string        `json:"title"`
	Status   int           `json:"status"`
	Resource string        `json:"resource,omitempty"`
	Held     string        `json:"held,omitempty"`
	Current  string        `json:"current,omitempty"`
	Holder   *fence.Holder `json:"holder,omitempty"`
	Outcome  string        `json:"outcome"`
}

func problemOf(a wire.Answer) problem {
	return problem{
		Type: kindPrefix + string(a.Kind), Title: a.Title(), Status: statuses[a.Kind],
		Resource: a.Resource, Held: a.Held, Current: a.Current, Holder: a.Holder, Outcome: a.Outcome,
	}
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
