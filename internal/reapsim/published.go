package reapsim

import "time"

// The four algorithms of rate_throttle_client, as their README and code describe them. All
// pause for s before a call; a refusal adds least to s, waits, and multiplies s by 1.2; they
// differ in what a call that went through takes off. Each wait has a tenth of jitter.

// published is one of them.
type published struct {
	s, least float64 // seconds
	limit    float64
	random   func() float64
	decrease func(s, least, limit, remaining float64) float64
	waited   map[int]bool // threads whose wait after a refusal ends with their next call
}

func (p *published) wait(s float64) time.Duration {
	return time.Duration(s * (1 + p.random()/10) * float64(time.Second))
}

func (p *published) Pause() time.Duration { return p.wait(p.s) }

func (p *published) Learn(thread int, limited bool, remaining int) time.Duration {
	if p.waited[thread] { // s is multiplied behind the wait, not before it
		p.s *= 1.2
	}
	p.waited[thread] = limited
	if !limited {
		p.s = max(p.s-p.decrease(p.s, p.least, p.limit, float64(remaining)), 0)
		return 0
	}
	p.s += p.least
	return p.wait(p.s)
}

// exponential forgets on success what it has learned, and each thread learns for itself.
type exponential struct {
	published
	own map[int]float64 // by thread
}

func (p *exponential) Pause() time.Duration { return 0 }

func (p *exponential) Learn(thread int, limited bool, _ int) time.Duration {
	if !limited {
		delete(p.own, thread)
		return 0
	}
	s, ok := p.own[thread]
	if !ok {
		s = p.least
	}
	p.own[thread] = s * 1.2
	return p.wait(s)
}

// A Peer makes throttles of a published algorithm that have learned to pause for start.
type Peer struct {
	Name string
	New  func(g Game, start time.Duration, random func() float64) Algorithm
}

// Peers are the published algorithms.
func Peers() []Peer {
	like := func(name string, decrease func(s, least, limit, remaining float64) float64) Peer {
		return Peer{name, func(g Game, start time.Duration, random func() float64) Algorithm {
			return newPublished(g, start, random, decrease)
		}}
	}
	return []Peer{
		{"ExponentialBackoff", func(g Game, _ time.Duration, random func() float64) Algorithm {
			return &exponential{*newPublished(g, 0, random, nil), map[int]float64{}}
		}},
		like("GradualDecrease", func(_, least, _, _ float64) float64 { return least }),
		like("ProportionalDecrease", func(s, _, limit, _ float64) float64 { return s / limit }),
		like("ProportionalRemainingDecrease", func(s, _, limit, remaining float64) float64 { return s * remaining / limit }),
	}
}

func newPublished(g Game, start time.Duration, random func() float64, decrease func(s, least, limit, remaining float64) float64) *published {
	return &published{
		s: start.Seconds(), least: (g.Window / time.Duration(g.Limit)).Seconds(), limit: float64(g.Limit), random: random, decrease: decrease,
		waited: map[int]bool{},
	}
}
