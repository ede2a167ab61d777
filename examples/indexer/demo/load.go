package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/fencepost/fencepost/examples/indexer/app"
	"github.com/fencepost/fencepost/examples/indexer/registry"
)

const (
	thinkTime = 10 * time.Millisecond // between two requests of a client
	patience  = 2 * time.Second       // for one answer
	names     = 4                     // of packages
)

// A load is the clients, and what they were told.
type load struct {
	*demo
	web *http.Client

	mu       sync.Mutex
	accepted []string // IDs of changes
	told     map[string]registry.Stage
	slowest  time.Duration // answer to a change while a process led
	wrong    error         // that a client has been told
	serial   int
}

func newLoad(d *demo) *load {
	return &load{demo: d, web: &http.Client{Timeout: patience}, told: map[string]registry.Stage{}}
}

// begin starts the clients. The function that it returns joins them.
func (l *load) begin(ctx context.Context) (end func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for range l.clients {
		wg.Go(func() { l.client(ctx, quit) })
	}
	return func() {
		close(quit)
		wg.Wait()
	}
}

// client publishes a version, yanks it, takes that back and yanks it again, over and
// over.
func (l *load) client(ctx context.Context, quit chan struct{}) {
	for {
		l.mu.Lock()
		l.serial++
		n := l.serial
		l.mu.Unlock()
		name, version := fmt.Sprintf("package-%d", n%names), fmt.Sprintf("1.%d.0", n)
		for _, op := range []registry.Op{registry.Publish, registry.Yank, registry.Unyank, registry.Yank} {
			select {
			case <-quit:
				return
			default:
			}
			c := registry.Change{ID: rand.Text(), Op: op, Name: name, Version: version}
			if op == registry.Publish {
				c.Checksum = fmt.Sprintf("%x", sha256.Sum256([]byte(name+version)))
			}
			if err := l.change(ctx, c); err != nil {
				l.fail(err)
				return
			}
			if rest(ctx, thinkTime) != nil {
				return
			}
		}
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = errors.Join(l.wrong, err)
}

// change sends a change until it is accepted, and asks what became of it.
func (l *load) change(ctx context.Context, c registry.Change) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	took, err := l.ask(ctx, http.MethodPost, "/"+string(c.Op), body, http.StatusAccepted, new(app.Accepted))
	if err != nil {
		return fmt.Errorf("%s of %s %s: %w", c.Op, c.Name, c.Version, err)
	}
	l.mu.Lock()
	l.accepted, l.slowest = append(l.accepted, c.ID), max(l.slowest, took)
	older := l.accepted[len(l.accepted)/2]
	l.mu.Unlock()
	_, err = l.tell(ctx, older)
	return err
}

// tell asks what has become of a change. What was in the index once must stay there,
// and nothing may be lost or dead.
func (l *load) tell(ctx context.Context, id string) (registry.Fate, error) {
	var f registry.Fate
	if _, err := l.ask(ctx, http.MethodGet, "/publishes/"+id, nil, http.StatusOK, &f); err != nil {
		return f, fmt.Errorf("the status of %s: %w", id, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.told[id]
	if f.Stage == registry.Lost || f.Stage == registry.Dead || before == registry.InIndex && f.Stage != registry.InIndex {
		return f, fmt.Errorf("change %s is %s, and was %s before: %s", id, f.Stage, before, f.Error)
	}
	l.told[id] = f.Stage
	return f, nil
}

// ask sends a request to the process that leads until it is answered, and returns how
// long the answer took.
func (l *load) ask(ctx context.Context, method, path string, body []byte, want int, answer any) (time.Duration, error) {
	for {
		address, err := l.cluster.leader(ctx)
		if err != nil {
			return 0, err
		}
		took, code, err := l.send(ctx, method, "http://"+address+path, body, want, answer)
		switch {
		case err == nil && code != want:
			return 0, fmt.Errorf("%s %s was answered with %d, want %d", method, path, code, want)
		case err == nil:
			return took, nil
		}
		if err := rest(ctx, thinkTime); err != nil { // it has ended, or does not serve yet
			return 0, err
		}
	}
}

var errElsewhere = errors.New("another process leads")

func (l *load) send(ctx context.Context, method, url string, body []byte, want int, answer any) (took time.Duration, code int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	resp, err := l.web.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return 0, 0, err
	case resp.StatusCode == http.StatusServiceUnavailable:
		return 0, 0, errElsewhere
	case resp.StatusCode != want:
		return 0, resp.StatusCode, nil
	}
	return time.Since(begun), resp.StatusCode, json.Unmarshal(text, answer)
}
