// Package admin is the HTTP API by which a process is watched and told what to
// do, from its own host only. It decides nothing: each route reads a request,
// calls one function of a Process and answers with what that returns.
//
//	GET  /api/leader/status      the status, as JSON
//	POST /api/leader/promote     {"generation": N, "reason": TEXT, "force": BOOL}: write the durable intent
//	POST /api/leader/abort       {"generation": N, "reason": TEXT}: give a promotion up, for good
//	POST /api/leader/step-down   {"reason": TEXT, "force": BOOL}: offer the token to a standby, and wait until one has it
//	POST /api/leader/preference  {"prefer_not_to_lead": BOOL}
//	GET  /livez                  200 while the process has not failed
//	GET  /readyz/standby         200 while it has read everything, or holds the token
//	GET  /readyz/leader          200 while it leads and serves
//
// Only generation and prefer_not_to_lead are required. Promote and abort take
// the same fields as parameters of the URL.
//
// The three kinds of health are apart because a rolling update deadlocks if a
// new process is only called ready once it leads.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/loopback"
)

// A Process is what the API tells of and asks for. S is its status, and I an
// intent to promote; both are sent as JSON.
type Process[S, I any] struct {
	Generation generation.Generation // that Promote is for

	Status func() S
	Health func(S) Health

	Promote  func(context.Context, Order) (I, error)
	Abort    func(context.Context, Order) (I, error)
	StepDown func(context.Context, Order) error
	Prefer   func(notToLead bool)

	// Refused reports whether an error of Promote or Abort is an answer, and not
	// a failure to find one.
	Refused func(error) bool
}

// An Order is what a person or a pipeline asks for, and why.
type Order struct {
	Generation generation.Generation `json:"generation"` // of a promotion or an abort
	Reason     string                `json:"reason"`     // for people; as it was sent
	Force      bool                  `json:"force"`      // even if a check says that it does harm
}

// Health is what probes ask for.
type Health struct {
	Alive, Standby, Leader bool
	Line                   string // the status in one line
}

// Handler returns the API of p. Register adds what else is answered at the same
// address, under the same checks of who asks.
func Handler[S, I any](p Process[S, I], register func(*http.ServeMux)) http.Handler {
	mux := http.NewServeMux()
	for pattern, route := range p.routes() {
		mux.HandleFunc(pattern, route.serve)
	}
	for path, good := range probes() {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { p.probe(w, good) })
	}
	register(mux)
	return loopback.Only(http.NewCrossOriginProtection().Handler(mux), func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, errors.New("leader: the admin API answers on loopback only"))
	})
}

// A route answers with a value and the status of success, or with an error,
// whose status a *failure says.
type route struct {
	success int
	answer  func(*http.Request) (any, error)
}

func (p Process[S, I]) routes() map[string]route {
	return map[string]route{
		"GET /api/leader/status":      {http.StatusOK, p.status},
		"POST /api/leader/promote":    {http.StatusAccepted, p.promote},
		"POST /api/leader/abort":      {http.StatusOK, p.abort},
		"POST /api/leader/step-down":  {http.StatusOK, p.stepDown},
		"POST /api/leader/preference": {http.StatusOK, p.prefer},
	}
}

func (p Process[S, I]) status(*http.Request) (any, error) { return p.Status(), nil }

// promote names the generation that the caller means: a request that reaches a
// process of another one is refused.
func (p Process[S, I]) promote(r *http.Request) (any, error) {
	order, err := ordered(r)
	if err != nil {
		return nil, err
	}
	if order.Generation != p.Generation {
		return nil, failed(http.StatusConflict, fmt.Errorf("this process is of generation %v, and generation %v is to be promoted: ask one of its processes", p.Generation, order.Generation))
	}
	return p.intend(r, order, p.Promote)
}

// abort gives a generation up, whichever this process is of.
func (p Process[S, I]) abort(r *http.Request) (any, error) {
	order, err := ordered(r)
	if err != nil {
		return nil, err
	}
	return p.intend(r, order, p.Abort)
}

func (p Process[S, I]) intend(r *http.Request, order Order, do func(context.Context, Order) (I, error)) (any, error) {
	intent, err := do(r.Context(), order)
	switch {
	case err == nil:
		return map[string]any{"intent": intent, "status": p.Status()}, nil
	case p.Refused(err):
		return nil, failed(http.StatusConflict, err)
	default:
		return nil, failed(http.StatusServiceUnavailable, err)
	}
}

func (p Process[S, I]) stepDown(r *http.Request) (any, error) {
	var order Order
	if err := read(r, &order); err != nil {
		return nil, failed(http.StatusBadRequest, fmt.Errorf(`leader: the body must be {"reason": TEXT}: %w`, err))
	}
	if err := p.StepDown(r.Context(), order); err != nil {
		return nil, failed(http.StatusConflict, err)
	}
	return map[string]any{"status": p.Status()}, nil
}

func (p Process[S, I]) prefer(r *http.Request) (any, error) {
	var body struct {
		Not *bool `json:"prefer_not_to_lead"`
	}
	if err := read(r, &body); err != nil || body.Not == nil {
		return nil, failed(http.StatusBadRequest, errors.Join(errors.New(`leader: the body must be {"prefer_not_to_lead": true} or false`), err))
	}
	p.Prefer(*body.Not)
	return map[string]any{"status": p.Status()}, nil
}

func probes() map[string]func(Health) bool {
	return map[string]func(Health) bool{
		"/livez":          func(h Health) bool { return h.Alive },
		"/readyz/standby": func(h Health) bool { return h.Standby },
		"/readyz/leader":  func(h Health) bool { return h.Leader },
	}
}

func (p Process[S, I]) probe(w http.ResponseWriter, good func(Health) bool) {
	h := p.Health(p.Status())
	if !good(h) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, h.Line) // nobody is left to be told
}

// ordered reads an order for a generation from the URL, if that names one, or
// from the body.
func ordered(r *http.Request) (Order, error) {
	o, err := fromURL(r.URL.Query())
	if !r.URL.Query().Has("generation") {
		if err = read(r, &o); err != nil {
			err = fmt.Errorf(`leader: the body must be {"generation": N}: %w`, err)
		}
	}
	if err == nil {
		o.Generation, err = generation.Parse(strconv.FormatUint(uint64(o.Generation), 10))
	}
	if err != nil {
		return o, failed(http.StatusBadRequest, err)
	}
	return o, nil
}

func fromURL(q url.Values) (o Order, err error) {
	if o.Generation, err = generation.Parse(q.Get("generation")); err != nil {
		return o, err
	}
	o.Reason = q.Get("reason")
	if q.Has("force") {
		if o.Force, err = strconv.ParseBool(q.Get("force")); err != nil {
			return o, fmt.Errorf("leader: force=%.64q is neither true nor false", q.Get("force"))
		}
	}
	return o, nil
}

// maxBody bounds the body of a request, in bytes.
const maxBody = 4096

func read(r *http.Request, v any) error {
	return json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody)).Decode(v)
}

// A failure is an error with the status that it is answered with.
type failure struct {
	code int
	error
}

func failed(code int, err error) error { return &failure{code, err} }

func (f *failure) Unwrap() error { return f.error }

func (t route) serve(w http.ResponseWriter, r *http.Request) {
	v, err := t.answer(r)
	var f *failure
	switch {
	case err == nil:
		reply(w, t.success, v)
	case errors.As(err, &f):
		refuse(w, f.code, err)
	default:
		refuse(w, http.StatusInternalServerError, err)
	}
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // nobody is left to be told
}

func refuse(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}
