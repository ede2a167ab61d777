package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// What a process is seen to be, beside the phases of package leader.
const (
	seenDown   = "down"   // nobody answers at its admin address
	seenSilent = "silent" // its admin address takes connections and says nothing
	seenParked = "parked"
	seenLeader = "Leading"
)

// probeTime bounds one look at an admin address.
const probeTime = 500 * time.Millisecond

// A watch looks at one process all the time, by its admin address, and
// remembers what it saw.
type watch struct {
	mu      sync.Mutex
	leading bool
	seen    []sight // one for each change
}

// A sight is what a process was seen to be, from a time on.
type sight struct {
	at   time.Time
	what string
}

// follow looks until ctx ends, and calls changed after every change.
func (p *process) follow(ctx context.Context, changed func()) {
	client := &http.Client{Timeout: probeTime, Transport: &http.Transport{MaxIdleConns: 1}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		began := time.Now()
		what := look(ctx, client, p.admin)
		if what != seenSilent {
			began = time.Now() // it took the answer, and nothing else, to know
		}
		if ctx.Err() == nil && p.watch.note(what, began) {
			changed()
		}
		rest(ctx, glance)
	}
}

// look asks once. The answer begins with the phase.
func look(ctx context.Context, client *http.Client, admin string) string {
	code, body, err := get(ctx, client, admin, "/readyz/leader")
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return seenSilent
	case err != nil:
		return seenDown
	case code == http.StatusOK:
		return seenLeader
	}
	what, _, _ := strings.Cut(body, ":")
	return what
}

// note remembers a change, and reports whether there was one. A process that is
// silent leads on until it says otherwise, or another does.
func (w *watch) note(what string, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if what != seenSilent {
		w.leading = what == seenLeader
	}
	if n := len(w.seen); n > 0 && w.seen[n-1].what == what {
		return false
	}
	w.seen = append(w.seen, sight{at: at, what: what})
	return true
}

// now returns what the process was last seen to be, and whether it leads.
func (w *watch) now() (what string, leading bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) == 0 {
		return seenDown, false
	}
	return w.seen[len(w.seen)-1].what, w.leading
}

func (w *watch) sights() []sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]sight(nil), w.seen...)
}

// get asks an admin address for one page.
func get(ctx context.Context, client *http.Client, admin, path string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}

// answers returns nil where the admin address answers path with code.
func (p *process) answers(ctx context.Context, path string, want int) error {
	code, body, err := get(ctx, &http.Client{Timeout: probeTime}, p.admin, path)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if code != want {
		return fmt.Errorf("%s answers %s with %d, want %d: %s", p.name, path, code, want, strings.TrimSpace(body))
	}
	return nil
}

// A parking is what an entrypoint says once its server was superseded.
type parking struct {
	Parked   bool             `json:"parked"`
	Restarts int              `json:"restarts"`
	Record   exitcodes.Record `json:"record"`
}

// parked returns what the entrypoint says of its server's end, or an error
// while it is not parked: alive, never ready, and still there.
func (p *process) parked(ctx context.Context) (s parking, err error) {
	_, body, err := get(ctx, &http.Client{Timeout: probeTime}, p.admin, "/api/leader/status")
	if err != nil {
		return s, fmt.Errorf("%s: %w", p.name, err)
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return s, fmt.Errorf("%s: the status: %w", p.name, err)
	}
	if !s.Parked {
		what, _ := p.watch.now()
		return s, fmt.Errorf("%s is not parked: it is seen to be %s", p.name, what)
	}
	return s, errors.Join(
		p.answers(ctx, "/livez", http.StatusOK),
		p.answers(ctx, "/readyz/leader", http.StatusServiceUnavailable),
		p.running())
}
