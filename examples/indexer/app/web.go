package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/examples/indexer/registry"
	"github.com/fencepost/fencepost/work"
)

const (
	requestTimeout = 10 * time.Second
	maxBody        = 4 << 10 // bytes
)

// Accepted is the answer to a change: it is durable, and its jobs are enqueued.
type Accepted struct {
	ID     string `json:"id"`
	Status string `json:"status"` // where to ask what becomes of it
}

// Refused is the answer to a request that was not done.
type Refused struct {
	Error  string `json:"error"`
	Leader string `json:"leader,omitempty"` // who answers
}

// A handler answers a request with a value, or an error.
type handler func(t *term, r *http.Request) (status int, answer any, err error)

// routes returns what the web server answers.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, op := range []registry.Op{registry.Publish, registry.Yank, registry.Unyank} {
		mux.Handle("POST /"+string(op), s.leading(func(t *term, r *http.Request) (int, any, error) { return accept(t, r, op) }))
	}
	mux.Handle("GET /publishes/{id}", s.leading(tell))
	mux.Handle("GET /packages/{name}", s.leading(wanted))
	mux.Handle("GET /feed", s.leading(announced))
	mux.Handle("GET /work", s.leading(status))
	mux.Handle("POST /resync", s.leading(resync))
	return mux
}

// leading answers with h while this process leads.
func (s *server) leading(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.term == nil {
			refused := Refused{Error: "this process does not lead"}
			if l := s.lead.Status().Leader; l != nil {
				refused.Leader = l.Holder.Address
			}
			write(w, http.StatusServiceUnavailable, refused)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		defer context.AfterFunc(s.term.ctx, func() { end(context.Cause(s.term.ctx)) })()
		code, answer, err := h(s.term, r.WithContext(ctx))
		if err != nil {
			code, answer = statusOf(err), Refused{Error: err.Error()}
		}
		write(w, code, answer)
	})
}

// statusOf returns the status that says what a client can do about an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, registry.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, registry.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, registry.ErrExists):
		return http.StatusConflict
	case errors.Is(err, work.ErrFull):
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable
	}
}

func write(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // the client has gone
}

// accept does a change. It waits for the commit, and not for the index.
func accept(t *term, r *http.Request, op registry.Op) (int, any, error) {
	change, err := readChange(r.Body, op)
	if err != nil {
		return 0, nil, err
	}
	err = t.c.Update(r.Context(), func(tx *catalog.Tx) error { return registry.Accept(tx, change, time.Now()) })
	if err != nil && catalog.OutcomeOf(err) == driver.Unknown {
		err = fmt.Errorf("whether change %s was done is not known: send it again with this id: %w", change.ID, err)
	}
	return http.StatusAccepted, Accepted{ID: change.ID, Status: "/publishes/" + change.ID}, err
}

// readChange reads a change. One without an ID gets one.
func readChange(body io.Reader, op registry.Op) (registry.Change, error) {
	var c registry.Change
	text, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err == nil && len(text) > maxBody {
		err = fmt.Errorf("a body of more than %d bytes", maxBody)
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	if c.Op != "" && c.Op != op {
		return c, fmt.Errorf("%w: the operation %.64q at the address of %s", registry.ErrInvalid, c.Op, op)
	}
	c.ID, c.Op = cmp.Or(c.ID, rand.Text()), op
	return c, nil
}

// tell says what has become of a change.
func tell(t *term, r *http.Request) (code int, answer any, err error) {
	err = t.c.View(func(s *catalog.Reader) error {
		answer, err = registry.Tell(s, t.c.Head(), r.PathValue("id"), time.Now())
		return err
	})
	return http.StatusOK, answer, err
}

// wanted shows a package as it is in the catalog.
func wanted(t *term, r *http.Request) (code int, answer any, err error) {
	var content []byte
	err = t.c.View(func(s *catalog.Reader) (err error) {
		content, _, err = registry.Wanted(s, r.PathValue("name"))
		return err
	})
	if err == nil && len(content) == 0 {
		err = registry.ErrNotFound
	}
	return http.StatusOK, string(content), err
}

// maxFeed is how many entries of the feed are shown: the newest.
const maxFeed = 100

func announced(t *term, _ *http.Request) (int, any, error) {
	newest := []registry.Announced{}
	err := t.c.View(func(s *catalog.Reader) error {
		return registry.Feed(s, func(a registry.Announced) bool {
			newest = append(newest, a)
			if len(newest) > maxFeed {
				newest = newest[1:]
			}
			return true
		})
	})
	return http.StatusOK, newest, err
}

// status shows what the jobs do.
func status(t *term, r *http.Request) (int, any, error) {
	st, err := t.queue.Status(r.Context())
	return http.StatusOK, st, err
}

// resync has the whole index made anew.
func resync(t *term, r *http.Request) (int, any, error) {
	var n int
	err := t.c.Update(r.Context(), func(tx *catalog.Tx) (err error) {
		n, err = registry.Resync(tx)
		return err
	})
	return http.StatusAccepted, map[string]int{"packages": n}, err
}
