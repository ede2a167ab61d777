package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
)

type etcdBackend struct{ server string }

func newEtcd() (backend, error) {
	server := os.Getenv("FENCEPOST_TEST_ETCD")
	if server == "" {
		return nil, errors.New("FENCEPOST_TEST_ETCD is not set: use make bench")
	}
	return &etcdBackend{server}, nil
}

func (b *etcdBackend) name() string { return "etcd" }

func (b *etcdBackend) open(ctx context.Context, catalog string) (driver.Store, error) {
	return etcd.Open(ctx, b.url(catalog), etcd.Config{})
}

func (b *etcdBackend) url(catalog string) string { return b.server + "/" + catalog }

func (b *etcdBackend) endpoint() string { return "http://" + strings.TrimPrefix(b.server, "etcd://") }

// syncs returns how often the server has synced its WAL.
func (b *etcdBackend) syncs(ctx context.Context, _ string, _ func() error) (int64, error) {
	const metric = "etcd_disk_wal_fsync_duration_seconds_count "
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.endpoint()+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // reading: its error came before
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), metric); ok {
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("no %sin /metrics", metric))
}

func (b *etcdBackend) close() {}

// etcdRaw has a connection for each worker.
type etcdRaw struct {
	clients []*clientv3.Client
	prefix  string
}

func (b *etcdBackend) raw(ctx context.Context, table string) (raw, error) {
	r := &etcdRaw{prefix: table + "/"}
	for w := range workers {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{b.endpoint()}, Logger: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		r.clients = append(r.clients, client)
		if err := r.write(ctx, w, value(uint64(w))); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *etcdRaw) write(ctx context.Context, worker int, value []byte) error {
	_, err := r.clients[worker].Put(ctx, r.prefix+key(worker), string(value))
	return err
}

func (r *etcdRaw) read(ctx context.Context, worker int) error {
	_, err := r.clients[worker].Get(ctx, r.prefix+key(worker))
	return err
}

// fill adds rows in transactions of as many operations as etcd takes.
func (r *etcdRaw) fill(ctx context.Context, n int) error {
	const batch, writers = 128, 16
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for from := w * batch; from < n && errs[w] == nil; from += writers * batch {
				errs[w] = r.put(ctx, w, from, min(from+batch, n))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *etcdRaw) put(ctx context.Context, worker, from, to int) error {
	var ops []clientv3.Op
	for i := from; i < to; i++ {
		ops = append(ops, clientv3.OpPut(r.prefix+key(workers+i), string(value(uint64(i)))))
	}
	_, err := r.clients[worker].Txn(ctx).Then(ops...).Commit()
	return err
}

// scan reads by pages of 10,000 at one revision: the fastest that etcd does
// within its limits.
func (r *etcdRaw) scan(ctx context.Context) (n int, err error) {
	const page = 10_000
	from, end := r.prefix, clientv3.GetPrefixRangeEnd(r.prefix)
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page)}
	for {
		resp, err := r.clients[0].Get(ctx, from, opts...)
		if err != nil {
			return n, err
		}
		n += len(resp.Kvs)
		if !resp.More {
			return n, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		opts = []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(resp.Header.Revision)}
	}
}

func (r *etcdRaw) close() {
	for _, client := range r.clients {
		_ = client.Close()
	}
}
