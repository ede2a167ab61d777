package etcd_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// A logged is a log that a test looks into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// A server that comes back from a snapshot has the same keys, so that every
// condition holds there, too.
func TestNoCopyOfAWriteGoesToAServerThatCameBackAsAnotherCluster(t *testing.T) {
	t.Parallel()
	one, two := testetcd.NewServer(t, testetcd.Options{}), testetcd.NewServer(t, testetcd.Options{})
	two.Stop()
	log, cfg := new(logged), hedged()
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	host := func(s *testetcd.Server) string { return strings.Split(s.URL(), "/")[2] }
	s := open(t, "etcd://"+host(one)+","+host(two)+"/catalog", cfg)
	head := commit(t, s, claim(t, s), 3, "before")

	two.Start()
	clone := testetcd.Client(t, two.URL())
	all, err := testetcd.Client(t, one.URL()).Get(within(t, time.Minute), "catalog", clientv3.WithPrefix())
	require.NoError(t, err)
	for _, kv := range all.Kvs {
		_, err := clone.Put(within(t, time.Minute), string(kv.Key), string(kv.Value))
		require.NoError(t, err)
	}
	one.Signal(syscall.SIGSTOP)
	rec, done := record(head, "one store's"), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- s.Append(ctx, head, rec) }()
	require.Eventually(t, func() bool { return log.has("belongs to another cluster") || len(done) > 0 }, time.Minute, time.Millisecond)
	one.Signal(syscall.SIGCONT)
	if err := <-done; err != nil {
		require.NoError(t, resend(t, s, head, rec))
	}
	require.Contains(t, ids(t, open(t, one.URL(), etcd.Config{})), rec.ID)
	require.NotContains(t, ids(t, open(t, two.URL(), etcd.Config{})), rec.ID, "it landed in two stores")
}
