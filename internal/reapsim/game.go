package reapsim

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// An Algorithm is the throttle of one process. It is called by one goroutine.
type Algorithm interface {
	// Pause returns how long a thread waits before its next call.
	Pause() time.Duration

	// Learn takes in the answer to the call of a thread, whose nth refusal in a row it
	// is if limited, and returns how long the thread waits until it repeats a refused call.
	Learn(thread int, limited bool, remaining int) time.Duration
}

// A Game says what is played.
type Game struct {
	Limit     int
	Window    time.Duration
	Full      bool          // the bucket is full at the beginning, else empty
	Processes int           // each with a throttle
	Threads   int           // of each process
	Latency   time.Duration // of a call
	Spread    time.Duration // within which the threads make their first calls
	Length    time.Duration // until when calls begin
	Served    int           // after how many served calls the game ends; 0: by Length alone
	Seed      uint64
}

// Published is the game by which rate_throttle_client compares its algorithms: 30 minutes,
// 2 processes of 5 threads, 4500 calls an hour, and nothing saved up.
func Published(seed uint64) Game {
	return Game{
		Limit: 4500, Window: time.Hour, Processes: 2, Threads: 5,
		Latency: 165 * time.Millisecond, Spread: 8 * time.Second, Length: 30 * time.Minute, Seed: seed,
	}
}

// Clearing is its second game: 4500 calls that are all allowed.
func Clearing(seed uint64) Game {
	g := Published(seed)
	g.Full, g.Served, g.Length, g.Spread = true, g.Limit, 24*time.Hour, g.Latency
	return g
}

// A Result is what a game came to.
type Result struct {
	Requests, Limited int
	MaxSleep          time.Duration
	Spread            float64       // standard deviation of the requests of each thread
	Took              time.Duration // until the last answer
}

// Ratio is the part of all requests that was refused.
func (r Result) Ratio() float64 { return float64(r.Limited) / float64(max(r.Requests, 1)) }

// Served is how many requests went through.
func (r Result) Served() int { return r.Requests - r.Limited }

// A thread makes calls. It is in the queue at when its next call begins.
type thread struct {
	n       int // over all processes
	process int
	at      time.Duration
	order   int // of two at the same time, by when they were put into the queue
}

type queue []*thread

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*thread)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// bucket is the server.
type bucket struct {
	tokens, limit float64
	each          time.Duration // one token
	at            time.Duration // of tokens
}

// take answers a call.
func (b *bucket) take(now time.Duration) (ok bool, remaining int) {
	b.tokens = min(b.tokens+float64(now-b.at)/float64(b.each), b.limit)
	b.at = now
	if b.tokens < 1 {
		return false, 0
	}
	b.tokens--
	return true, int(b.tokens)
}

// Play plays a game. New makes the throttle of a process, by the model's clock and by
// random numbers from [0, 1).
func Play(g Game, new func(now func() time.Time, random func() float64) Algorithm) Result {
	p := &player{Game: g, server: bucket{limit: float64(g.Limit), each: g.Window / time.Duration(g.Limit)}}
	if g.Full {
		p.server.tokens = p.server.limit
	}
	random := rand.New(rand.NewPCG(g.Seed, g.Seed)).Float64
	for range g.Processes {
		p.throttles = append(p.throttles, new(func() time.Time { return time.Unix(0, 0).Add(p.now) }, random))
	}
	for n := range g.Processes * g.Threads {
		p.push(&thread{n: n, process: n / g.Threads}, time.Duration(random()*float64(g.Spread)))
	}
	p.requests = make([]int, g.Processes*g.Threads)
	for p.step() {
	}
	p.result.Spread = deviation(p.requests)
	return p.result
}

type player struct {
	Game
	server    bucket
	throttles []Algorithm
	now       time.Duration
	calls     queue // threads that wait to begin their next call, or for its answer
	pushed    int
	requests  []int
	result    Result
}

func (p *player) push(t *thread, wait time.Duration) {
	p.result.MaxSleep = max(p.result.MaxSleep, wait)
	p.pushed++
	t.at, t.order = p.now+wait, p.pushed
	heap.Push(&p.calls, t)
}

// step plays one call of the thread that is next, from its beginning to the next pause.
func (p *player) step() bool {
	t := heap.Pop(&p.calls).(*thread)
	if t.at > p.Length || p.Served > 0 && p.result.Served() >= p.Served {
		return false
	}
	p.now = t.at
	ok, remaining := p.server.take(p.now)
	p.requests[t.n]++
	p.result.Requests++
	p.result.Took = p.now + p.Latency
	throttle := p.throttles[t.process]
	if ok {
		throttle.Learn(t.n, false, remaining)
		p.push(t, p.Latency+throttle.Pause())
		return true
	}
	p.result.Limited++
	p.push(t, p.Latency+throttle.Learn(t.n, true, remaining))
	return true
}

func deviation(all []int) float64 {
	var sum, squares float64
	for _, n := range all {
		sum += float64(n)
	}
	mean := sum / float64(len(all))
	for _, n := range all {
		squares += (float64(n) - mean) * (float64(n) - mean)
	}
	return math.Sqrt(squares / float64(len(all)))
}
