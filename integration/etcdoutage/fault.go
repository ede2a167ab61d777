package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/etcd"
)

// A fault is one way in which a server fails.
type fault struct {
	name, title string
	leader      bool // it is the leader's
	network     bool // it needs namespaces
	goal        time.Duration
	begin, end  func(context.Context, *lab, *server) error
}

const (
	goalFollower = 1500 * time.Millisecond
	goalLeader   = 2500 * time.Millisecond
)

func faults() (all []fault) {
	kinds := []fault{
		{name: "stopped", title: "stopped (SIGSTOP)", begin: sends(syscall.SIGSTOP), end: sends(syscall.SIGCONT)},
		{name: "killed", title: "killed (SIGKILL)", begin: kill, end: func(_ context.Context, l *lab, s *server) error { return l.start(s) }},
		{name: "vanished", title: "vanished (packets dropped)", network: true, begin: links("down", "clients", "peers"), end: links("up", "clients", "peers")},
		{name: "cut", title: "cut off from its peers", network: true, begin: links("down", "peers"), end: links("up", "peers")},
	}
	for _, leader := range []bool{false, true} {
		role, goal := "follower", goalFollower
		if leader {
			role, goal = "leader", goalLeader
		}
		for _, f := range kinds {
			f.name, f.title, f.leader, f.goal = role+"-"+f.name, role+" "+f.title, leader, goal
			all = append(all, f)
		}
	}
	nothing := func(context.Context, *lab, *server) error { return nil }
	return append(all, fault{name: "move-leader", title: "etcdctl move-leader", leader: true, goal: goalLeader, begin: moveLeader, end: nothing})
}

func faultNames() (names []string) {
	for _, f := range faults() {
		names = append(names, f.name)
	}
	return names
}

func sends(signal os.Signal) func(context.Context, *lab, *server) error {
	return func(_ context.Context, _ *lab, s *server) error { return s.cmd.Process.Signal(signal) }
}

func kill(_ context.Context, _ *lab, s *server) error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}

func links(state string, networks ...string) func(context.Context, *lab, *server) error {
	return func(_ context.Context, _ *lab, s *server) error {
		for _, network := range networks {
			if err := ip("link", "set", s.link(network), state); err != nil {
				return err
			}
		}
		return nil
	}
}

func moveLeader(ctx context.Context, l *lab, leader *server) error {
	_, other, err := l.roles(ctx)
	if err != nil {
		return err
	}
	to, err := l.status(ctx, other)
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{leader.client}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.MoveLeader(ctx, to.Header.MemberId)
	return err
}

const (
	before  = 500 * time.Millisecond // of commits before the fault
	behind  = time.Second            // and behind the first one after it that took long
	longest = time.Minute
)

// measure returns the longest time between two commits of one run.
func measure(ctx context.Context, l *lab, f fault, prefix, query string) (gap time.Duration, err error) {
	leader, victim, err := l.roles(ctx)
	if err != nil {
		return 0, err
	}
	if f.leader {
		victim = leader
	}
	url := "etcd://" + strings.Join(l.endpoints(), ",") + "/" + prefix
	if query != "" {
		url += "?" + query
	}
	store, err := etcd.Open(ctx, url, etcd.Config{})
	if err != nil {
		return 0, err
	}
	c, err := catalog.Open(ctx, store, catalog.Config{Generation: 1})
	if err != nil {
		return 0, err
	}
	w := &writing{c: c, stop: make(chan struct{})}
	w.begin()
	time.Sleep(before)
	err = f.begin(ctx, l, victim)
	time.Sleep(behind)
	w.awaitCommit()
	time.Sleep(behind)
	gap, werr := w.finish()
	return gap, errors.Join(err, werr, c.Close(), store.Close(), f.end(ctx, l, victim), l.settled(ctx))
}

// writing commits one entry after the other.
type writing struct {
	c    *catalog.Catalog
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	last time.Time // commit
	gap  time.Duration
	err  error
}

func (w *writing) begin() {
	w.last = time.Now()
	w.done.Go(func() {
		entries := catalog.Bytes("entries")
		for n := 0; w.err == nil; n++ {
			select {
			case <-w.stop:
				return
			default:
			}
			ctx, cancel := context.WithTimeout(context.Background(), longest)
			err := w.c.Update(ctx, func(tx *catalog.Tx) error { return entries.Set(tx, "key", fmt.Append(nil, n)) })
			cancel()
			w.committed(err)
		}
	})
}

func (w *writing) committed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.gap, w.last, w.err = max(w.gap, now.Sub(w.last)), now, err
}

// awaitCommit waits until a commit that began before has ended.
func (w *writing) awaitCommit() {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		over := w.last.After(began) || w.err != nil
		w.mu.Unlock()
		if over {
			return
		}
	}
}

func (w *writing) finish() (time.Duration, error) {
	close(w.stop)
	w.done.Wait()
	return w.gap, w.err
}
