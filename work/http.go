package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Handler returns what an application can mount in its own admin mux, beneath a prefix:
//
//	mux.Handle("/work/", http.StripPrefix("/work", work.Handler(q)))
//
//	GET  /          the Status of q as text; as JSON with ?format=json, or if JSON is accepted
//	POST /activate  one pass at once; its Report, likewise
//
// Both answer 503 while q does not run, as on a standby. It asks for no password, and
// errors and keys of jobs are shown: whoever mounts it decides who may ask. A POST that
// a browser sends from another site is refused. The Queue is asked for one request at a time, since
// the status of many jobs costs time in which no job is started.
func Handler(q *Queue) http.Handler {
	h := handler{q: q, turn: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.status)
	mux.HandleFunc("POST /activate", h.activate)
	return http.NewCrossOriginProtection().Handler(mux)
}

type handler struct {
	q    *Queue
	turn chan struct{} // holds one while the Queue is asked
}

func (h handler) status(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, func(ctx context.Context) (any, func(http.ResponseWriter) error, error) {
		st, err := h.q.Status(ctx)
		return st, func(w http.ResponseWriter) error { return st.WriteText(w) }, err
	})
}

func (h handler) activate(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, func(ctx context.Context) (any, func(http.ResponseWriter) error, error) {
		report, err := h.q.Pass(ctx)
		return report, func(w http.ResponseWriter) error {
			_, err := fmt.Fprintf(w, "pass %d: found %d, claimed %d, %d run\n", report.Number, report.Found(), report.Claimed, report.Held())
			return err
		}, err
	})
}

// get returns what is to be answered, as JSON and as text.
type get func(context.Context) (any, func(http.ResponseWriter) error, error)

// inTurn asks the Queue for one request at a time. A caller that reads its answer slowly
// holds up nobody.
func (h handler) inTurn(ctx context.Context, get get) (any, func(http.ResponseWriter) error, error) {
	if !h.q.used.Load() { // else it would be waited for
		return nil, nil, ErrNotRunning
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
		return get(ctx)
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

// answer answers as JSON or text.
func (h handler) answer(w http.ResponseWriter, r *http.Request, get get) {
	v, text, err := h.inTurn(r.Context(), get)
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		code := http.StatusInternalServerError // or the caller is gone, who then gets nothing
		if errors.Is(err, ErrNotRunning) {
			code = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), code)
		return
	}
	// An answer that can't be written is the caller's loss alone.
	if r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json") {
		head.Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	head.Set("Content-Type", "text/plain; charset=utf-8")
	_ = text(w)
}
