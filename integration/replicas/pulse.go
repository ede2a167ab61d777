package replicas

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// A Pulse writes to several addresses in a loop, over one connection each, and notes
// when any of them acknowledged a write. So it knows for how long nobody served.
type Pulse struct {
	stop     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup

	mu       sync.Mutex
	paused   bool
	idle     *sync.Cond
	busy     int
	acked    []time.Time
	unknown  []string // replies that leave open whether a write has landed
	answered map[string]time.Time
}

// PulseKey is what a pulse writes.
const PulseKey = "pulse"

const (
	beat     = 2 * time.Millisecond // between two writes to one address
	answerBy = 30 * time.Second     // then the connection is given up
)

// NewPulse starts writing.
func NewPulse(addresses ...string) *Pulse {
	p := &Pulse{stop: make(chan struct{}), answered: map[string]time.Time{}}
	p.idle = sync.NewCond(&p.mu)
	for _, address := range addresses {
		p.wg.Go(func() { p.write(address) })
	}
	return p
}

// Stop ends the writing, and may be called again.
func (p *Pulse) Stop() {
	p.stopOnce.Do(func() { close(p.stop) })
	p.Resume()
	p.wg.Wait()
}

// Pause returns once no write is under way; none is begun until Resume.
func (p *Pulse) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.paused = true; p.busy > 0; {
		p.idle.Wait()
	}
}

// Resume ends a pause.
func (p *Pulse) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
	p.idle.Broadcast()
}

// begin waits while the pulse is paused.
func (p *Pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.paused {
		p.idle.Wait()
	}
	p.busy++
}

func (p *Pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	p.idle.Broadcast()
}

func (p *Pulse) write(address string) {
	var c *client
	defer func() { c.close() }()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.begin()
		c = p.once(c, address)
		p.end()
	}
}

// once makes one write, and returns the connection, or nil once that is broken.
func (p *Pulse) once(c *client, address string) *client {
	var err error
	if c == nil {
		if c, err = dial(address, time.Second); err != nil {
			return nil
		}
	}
	done := make(chan struct{})
	defer close(done)
	go func() { // Stop does not wait for a server that does not answer
		select {
		case <-p.stop:
			c.close()
		case <-done:
		}
	}()
	reply, err := c.call(answerBy, "SET", PulseKey, time.Now().String())
	p.note(address, reply, err)
	if err != nil {
		c.close()
		return nil
	}
	return c
}

func (p *Pulse) note(address, reply string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if _, before := p.answered[address]; err == nil && !before {
		p.answered[address] = now
	}
	switch {
	case err == nil && reply == "+OK":
		p.acked = append(p.acked, now)
	case strings.HasPrefix(reply, "-UNKNOWN"):
		p.unknown = append(p.unknown, reply)
	}
}

// Forget makes Answered wait for the next answer of an address.
func (p *Pulse) Forget(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answered, address)
}

// Answered returns when an address first answered anything since Forget. Zero means
// that it has not.
func (p *Pulse) Answered(address string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered[address]
}

// After returns when a write was first acknowledged after t, or false if none was
// yet.
func (p *Pulse) After(t time.Time) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.acked, t.Before)
	if i < 0 {
		return time.Time{}, false
	}
	return p.acked[i], true
}

// Gaps returns for how long nobody served: all times of at least least between two
// consecutive acknowledgements, of which the second came after t.
func (p *Pulse) Gaps(t time.Time, least time.Duration) (gaps []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 1; i < len(p.acked); i++ {
		if d := p.acked[i].Sub(p.acked[i-1]); p.acked[i].After(t) && d >= least {
			gaps = append(gaps, d)
		}
	}
	return gaps
}

// Unknown returns the replies that left open whether a write has landed.
func (p *Pulse) Unknown() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.unknown)
}

// Await waits until a write was acknowledged after t, and returns when that was.
func (p *Pulse) Await(t time.Time, patience time.Duration) (time.Time, bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		if at, ok := p.After(t); ok {
			return at, true
		}
		select {
		case <-tick.C:
		case <-late:
			return time.Time{}, false
		}
	}
}
