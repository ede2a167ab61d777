package work_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/work"
)

func TestARequestOfAnotherProcessIsPickedUpWithoutAPollOnSQLiteAndEtcd(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) func() (driver.Store, error){
		"sqlite": func(t *testing.T) func() (driver.Store, error) {
			path := filepath.Join(t.TempDir(), "catalog.db")
			return func() (driver.Store, error) { return sqlite.Open(path, sqlite.Config{}) }
		},
		"etcd": func(t *testing.T) func() (driver.Store, error) {
			url := testetcd.URL(t)
			return func() (driver.Store, error) { return etcd.Open(t.Context(), url, etcd.Config{}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opens := open(t)
			store := func() driver.Store {
				s, err := opens()
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				return s
			}
			c, err := catalog.Open(t.Context(), store(), catalog.Config{Generation: 1})
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			ran := make(chan string, 10)
			q, err := work.New(c, work.Config{Poll: time.Hour, Kinds: []work.Kind{{Name: "sync", Order: work.Each, Run: func(_ context.Context, j *work.Job) error {
				ran <- string(j.Payload)
				return nil
			}}}})
			require.NoError(t, err)
			board := catalog.NewBoard(store(), catalog.Config{})
			post := func(ref, payload string) {
				require.NoError(t, work.Post(t.Context(), board, ref, work.Note{Op: work.OpEnqueue, Kind: "sync", Key: "k", Payload: []byte(payload)}))
			}
			large := work.Note{Op: work.OpEnqueue, Kind: "large", Payload: make([]byte, map[string]int{"sqlite": 760, "etcd": 190}[name]<<10)}
			require.NoError(t, work.Post(t.Context(), board, "large", large))
			large.Payload = append(large.Payload, make([]byte, 30<<10)...)
			err = work.Post(t.Context(), board, "too-large", large)
			require.ErrorIs(t, err, work.ErrTooLarge)
			require.ErrorIs(t, err, driver.ErrTooLarge, "it is the store's limit")
			require.ErrorContains(t, err, "keep it elsewhere")
			out, err := work.Inbox(t.Context(), board)
			require.NoError(t, err)
			require.Equal(t, 1, out.Requests)
			post("1", "before")
			post("2", "the holder")
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- q.Run(ctx) }()
			defer func() { stop(); <-done }()
			next := func() string {
				select {
				case payload := <-ran:
					return payload
				case <-time.After(time.Minute):
					return "nothing"
				}
			}
			require.Equal(t, "before", next())
			require.Equal(t, "the holder", next())
			post("3", "behind")
			require.Equal(t, "behind", next())
			require.Eventually(t, func() bool {
				out, err := work.Inbox(t.Context(), board)
				return err == nil && out.Requests == 0
			}, time.Minute, 5*time.Millisecond)
		})
	}
}
