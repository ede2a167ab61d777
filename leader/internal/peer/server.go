package peer

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// Limits of what a server takes.
const (
	maxConnected  = 512              // connections that are kept for presence
	maxHandovers  = 64               // handovers that are asked for at a time
	maxMigrations = time.Hour        // for which a holder waits because of migrations
	lineTimeout   = 10 * time.Second // for which a line may stay unsent
)

// A Holder is the process that is asked.
type Holder interface {
	// Claim returns the claim that this process holds, and false if it holds none.
	Claim() (driver.ID, bool)

	// News returns a channel that is closed when there is something to see on the
	// board.
	News() <-chan struct{}

	// HandOver carries out one handover. It calls s.Acknowledge once the term has
	// taken the request, s.Pause once the work has ended, and returns when the
	// handover has: nil if another process has claimed. An error before the first of
	// these calls is a refusal, and may match ErrBusy or ErrNotPromoted. When ctx
	// ends, the successor waits no longer. HandOver asks the store whether this
	// successor is to lead, before it disturbs anybody.
	HandOver(ctx context.Context, s *Successor) error
}

// A Server answers what other processes ask. One is enough for any number of
// listeners.
type Server struct {
	holder    Holder
	connected atomic.Int64 // for presence
	standbys  atomic.Int64 // those of them to which the claim was proved

	mu        sync.Mutex
	handovers map[string]*Successor // by nonce
}

// NewServer returns a Server for h.
func NewServer(h Holder) *Server {
	return &Server{holder: h, handovers: map[string]*Successor{}}
}

// Register adds the routes to mux.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+presencePath, s.presence)
	mux.HandleFunc("POST "+handoverPath, s.handover)
	mux.HandleFunc("POST "+progressPath, s.progress)
}

// Standbys returns how many processes are connected and know of this one's
// claim.
func (s *Server) Standbys() int64 { return s.standbys.Load() }

// proven returns the holder's own proof if this process is the holder that r
// means. If not, it has refused r.
func (s *Server) proven(w http.ResponseWriter, r *http.Request) (string, bool) {
	q := r.URL.Query()
	nonce := q.Get("nonce")
	claim, ok := s.holder.Claim()
	about := func(role string) string { return proof(claim, role, nonce, r.URL.Path, q.Get("generation")) }
	if !ok || len(nonce) < minNonce || !hmac.Equal([]byte(q.Get("proof")), []byte(about(asks))) {
		refuse(w, http.StatusNotFound, fmt.Errorf("leader: this process %w", ErrNotHolder))
		return "", false
	}
	return about(holds), true
}

func (s *Server) presence(w http.ResponseWriter, r *http.Request) {
	mine, ok := s.proven(w, r)
	if !ok {
		return
	}
	defer s.connected.Add(-1)
	if s.connected.Add(1) > maxConnected {
		refuse(w, http.StatusServiceUnavailable, fmt.Errorf("leader: %d processes are connected already", maxConnected))
		return
	}
	send, news := stream(w), s.holder.News()
	if send(line{Proof: mine}) != nil {
		return
	}
	s.standbys.Add(1) // not before: without the proof it can't know of this process's death
	defer s.standbys.Add(-1)
	for {
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
		news = s.holder.News()
		if send(line{Proof: mine}) != nil {
			return
		}
	}
}

func (s *Server) handover(w http.ResponseWriter, r *http.Request) {
	mine, ok := s.proven(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	next, err := generation.Parse(q.Get("generation"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	more, err := migrations(q.Get(migrationsParam))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	successor := &Successor{
		Generation: next, Migrations: more,
		progress: make(chan struct{}, 1), knows: q.Get(acknowledgeParam) == "1", proof: mine, w: w,
	}
	leave, err := s.enter(q.Get("nonce"), successor)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer leave()
	switch err := s.holder.HandOver(r.Context(), successor); {
	case err != nil && successor.send == nil && errors.Is(err, ErrNotPromoted):
		refuse(w, http.StatusConflict, err)
	case err != nil && successor.send == nil:
		refuse(w, http.StatusServiceUnavailable, err)
	case err != nil:
		_ = successor.say(line{Error: err.Error()}) // the asker has gone, or has claimed
	}
}

// enter registers a handover under its nonce, by which progress names it.
func (s *Server) enter(nonce string, successor *Successor) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handovers[nonce] != nil {
		return nil, fmt.Errorf("leader: this process %w, under the same nonce", ErrBusy)
	}
	if len(s.handovers) >= maxHandovers {
		return nil, fmt.Errorf("leader: this process %w, and %d others wait", ErrBusy, maxHandovers)
	}
	s.handovers[nonce] = successor
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.handovers, nonce)
	}, nil
}

func (s *Server) progress(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.proven(w, r); !ok {
		return
	}
	s.mu.Lock()
	successor := s.handovers[r.URL.Query().Get("nonce")]
	s.mu.Unlock()
	if successor == nil {
		refuse(w, http.StatusConflict, fmt.Errorf("leader: this process %w", ErrResumed))
		return
	}
	select {
	case successor.progress <- struct{}{}:
	default: // the holder has not looked since the last one
	}
	w.WriteHeader(http.StatusNoContent)
}

// migrations reads for how long migrations may run. It needs no proof: the pause
// ends with the connection.
func migrations(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("leader: %s=%.64q is not a duration, such as 30s", migrationsParam, text)
	}
	return min(d, maxMigrations), nil
}

// A Successor is a process that asks the holder to hand over.
type Successor struct {
	Generation generation.Generation
	Migrations time.Duration // how much longer than usual the handover may take, at most an hour

	progress chan struct{}
	knows    bool // the line of acknowledgement
	proof    string
	w        http.ResponseWriter
	send     func(line) error // nil: no line has been sent
}

// Progress returns a channel that receives a value after the successor has said
// that it is still at work. Several such words may be one value.
func (s *Successor) Progress() <-chan struct{} { return s.progress }

// Acknowledge tells the successor that the term has taken its request. An error
// means that it can't be told.
func (s *Successor) Acknowledge() error {
	if !s.knows {
		return nil
	}
	return s.say(line{Acknowledged: true})
}

// Pause tells the successor that the work has ended, and where.
func (s *Successor) Pause(p Paused) error {
	return s.say(line{Revision: p.Revision, Version: p.Version})
}

// say sends one line; the first one carries the proof.
func (s *Successor) say(v line) error {
	if s.send == nil {
		s.send, v.Proof = stream(s.w), s.proof
	}
	return s.send(v)
}

// stream begins an answer of several lines, which lasts until the handler
// returns. The server's own time-outs no longer end it; a line that can't be
// sent within lineTimeout does.
func stream(w http.ResponseWriter) func(line) error {
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // a server that can't keeps its own, and the asker asks again
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	return func(v line) error {
		_ = out.SetWriteDeadline(time.Now().Add(lineTimeout)) // likewise
		return errors.Join(enc.Encode(v), out.Flush())
	}
}

// refuse answers that nothing comes of the request.
func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(line{Error: err.Error(), Busy: errors.Is(err, ErrBusy)}) // nobody is left to be told
}
