package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
)

// The goals of opening a large catalog: its time as a multiple of a plain scan,
// and resident memory as a multiple of the live bytes.
const (
	openGoal   = 1.3
	memoryGoal = 2
)

// opens measures how long a large catalog takes to open, and what it occupies.
func opens(b *bench) error {
	r, err := b.backend.raw(b.ctx, fresh("raw"))
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.fill(b.ctx, b.entries); err != nil {
		return err
	}
	name := fresh("large")
	if err := b.build(name); err != nil {
		return err
	}
	scan := func() (timing, error) { return b.timeScan(r) }
	open := func() (timing, error) { return b.timeOpen(name) }
	c, err := versus(b.bulks, scan, open)
	if err != nil {
		return err
	}
	b.report(figure{Name: fmt.Sprintf("open of %d entries", b.entries), P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops * float64(b.entries), FloorUS: c.floor.p50, Ratio: c.p50}.
		atMost(c.p50, openGoal, "x scan"))
	return b.resident(name)
}

// build writes the large catalog.
func (b *bench) build(name string) error {
	h, err := b.hold(name)
	if err != nil {
		return err
	}
	defer h.close()
	return fillCatalog(b, h, b.entries)
}

// fillCatalog adds entries 0 to n-1 in commits that every store takes.
func fillCatalog(b *bench, h *holder, n int) error {
	const batch = 4000
	for from := 0; from < n; from += batch {
		err := h.Update(b.ctx, func(tx *catalog.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				if err := entries.Set(tx, key(i), value(uint64(i))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// once is the timing of one long operation.
func once(d time.Duration) timing { return newTiming([]time.Duration{d}, d) }

func (b *bench) timeScan(r raw) (timing, error) {
	debug.FreeOSMemory()
	began := time.Now()
	n, err := r.scan(b.ctx)
	took := time.Since(began)
	if err == nil && n != b.entries+workers {
		err = fmt.Errorf("the plain scan found %d rows, want %d", n, b.entries+workers)
	}
	return once(took), err
}

func (b *bench) timeOpen(name string) (timing, error) {
	debug.FreeOSMemory()
	began := time.Now()
	h, err := b.hold(name)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	defer h.close()
	return once(took), b.spotCheck(h)
}

// spotCheck compares a thousand random entries with what was written.
func (b *bench) spotCheck(h *holder) error {
	return h.View(func(r *catalog.Reader) error {
		for range 1000 {
			n := rand.IntN(b.entries)
			v, ok, err := entries.Get(r, key(n))
			if err != nil || !ok || !bytes.Equal(v, value(uint64(n))) {
				return fmt.Errorf("entry %d is not what was written (found: %v, error: %v)", n, ok, err)
			}
		}
		return nil
	})
}

// resident measures what the process grows by when the catalog is opened, after
// a garbage collection, and then reads of it.
func (b *bench) resident(name string) error {
	debug.FreeOSMemory()
	before, err := rss()
	if err != nil {
		return err
	}
	h, err := b.hold(name)
	if err != nil {
		return err
	}
	defer h.close()
	debug.FreeOSMemory()
	after, err := rss()
	if err != nil {
		return err
	}
	live := float64(b.entries * (keySize + valueSize))
	grown := float64(after - before)
	b.report(figure{Name: "resident memory of it", Ratio: grown / live, Note: fmt.Sprintf("%.0f MB for %.0f MB, after a garbage collection", grown/1e6, live/1e6)}.
		atMost(grown/live, memoryGoal, "x live bytes"))
	return viewOf(b, h, b.entries)
}

// rss returns the resident memory of this process, in bytes.
func rss() (int64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/self/statm says %q", text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
