package etcd

import (
	"sync"
	"time"
)

// latency estimates how long a cluster takes to answer, as TCP does for its
// retransmissions (RFC 6298): a smoothed mean, and a smoothed deviation from it.
type latency struct {
	mu              sync.Mutex
	mean, deviation time.Duration // zero before the first answer
}

const (
	firstPatience = 250 * time.Millisecond // before the first answer
	leastPatience = 50 * time.Millisecond
	mostInterval  = 100 * time.Millisecond
	leastQuestion = 250 * time.Millisecond // of a home that is suspected
	perMiB        = 100 * time.Millisecond // for a link of 10 MiB/s
)

func (l *latency) observe(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mean == 0 {
		l.mean, l.deviation = d, d/2
		return
	}
	l.deviation += ((l.mean - d).Abs() - l.deviation) / 4
	l.mean += (d - l.mean) / 8
}

// limit is how long all but a few answers take.
func (l *latency) limit() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mean == 0 {
		return firstPatience
	}
	return l.mean + 4*l.deviation
}

// observe notes how long an answer took. More than the patience can ever be counts
// as that, so that one election is soon forgotten.
func (c *cluster) observe(d time.Duration) { c.latency.observe(min(d, c.cfg.Lease/8)) }

// patience is how long a request of size bytes may be without an answer before a
// copy is sent to another member: [Config.HedgeAfter], or by the answers so far,
// at least 50 ms and at most an eighth of the lease.
func (c *cluster) patience(size int) time.Duration {
	d := c.cfg.HedgeAfter
	if d <= 0 {
		d = max(min(c.latency.limit(), c.cfg.Lease/8), leastPatience)
	}
	return d + perMiB*time.Duration(size)/(1<<20)
}

// interval is the time from the n-th such copy to the next one. It doubles up to
// 100 ms, or to the patience if that is longer, so that an election that ends is
// noticed soon and a cluster that is slow gets few copies. The part for the size
// doubles without an end: copies of a large request share a link, and too many of
// them would keep each other from arriving.
func (c *cluster) interval(size, n int) time.Duration {
	d := c.patience(0)
	return max(d, min(d<<min(n, 8), mostInterval)) + (c.patience(size)-d)<<min(n, 8)
}
