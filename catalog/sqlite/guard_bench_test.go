package sqlite_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

// clients is how many goroutines of one process write at once, and each how often in
// one round.
const (
	clients = 32
	each    = 4
)

// BenchmarkGuard has 32 clients of one process make transactions of five statements,
// in rounds that are guarded and rounds that are not, in turn: unguarded ones wait for
// each other by SQLite's busy_timeout, and queued ones by a lock of the application's,
// as guarded ones do. What it reports is the median time of a transaction, and by how
// much a guarded one is longer.
func BenchmarkGuard(b *testing.B) {
	for where, options := range map[string]string{"in the catalog's file": "", "in a file of its own": "app.db"} {
		b.Run(where, func(b *testing.B) {
			name := options
			if name != "" {
				name = "file:" + filepath.Join(b.TempDir(), name) + "?_pragma=journal_mode(WAL)&_pragma=synchronous(2)"
			}
			s, err := sqlite.Open(filepath.Join(b.TempDir(), "c.db"), sqlite.Config{})
			require.NoError(b, err)
			blue, err := catalog.Open(b.Context(), s, catalog.Config{Generation: 1})
			require.NoError(b, err)
			db, err := s.OpenDB(name)
			require.NoError(b, err)
			db.SetMaxIdleConns(clients)
			_, err = db.ExecContext(b.Context(), "CREATE TABLE orders (n, text)")
			require.NoError(b, err)
			var one sync.Mutex
			ways := []func(context.Context) (transaction, error){
				func(ctx context.Context) (transaction, error) { return db.BeginTx(ctx, nil) },
				func(ctx context.Context) (transaction, error) { return sqlite.Begin(ctx, db, blue.Token()) },
				func(ctx context.Context) (transaction, error) {
					one.Lock()
					tx, err := db.BeginTx(ctx, nil)
					return queued{tx, one.Unlock}, err
				},
			}
			took := make([][]time.Duration, len(ways))
			for range max(b.N, 5) {
				for i, begin := range ways {
					took[i] = append(took[i], round(b, begin))
				}
			}
			for i := range took {
				slices.Sort(took[i])
			}
			median := func(way int) float64 { return float64(took[way][len(took[way])/2]) / float64(time.Microsecond) }
			b.ReportMetric(median(0), "unguarded-µs/tx")
			b.ReportMetric(median(1), "guarded-µs/tx")
			b.ReportMetric(median(2), "queued-µs/tx")
			b.ReportMetric(median(1)/median(0), "guarded/unguarded")
			b.ReportMetric(median(1)/median(2), "guarded/queued")
			require.NoError(b, db.Close())
			require.NoError(b, blue.Close())
			require.NoError(b, s.Close())
		})
	}
}

type transaction interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	Commit() error
}

// A queued transaction lets the next one begin behind its commit.
type queued struct {
	*sql.Tx
	leave func()
}

func (q queued) Commit() error {
	defer q.leave()
	return q.Tx.Commit()
}

// round has all clients make their transactions, and returns the time of one.
func round(b *testing.B, begin func(context.Context) (transaction, error)) time.Duration {
	begun := time.Now()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for n := range each {
				if err := fiveStatements(b.Context(), n, begin); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	return time.Since(begun) / (clients * each)
}

func fiveStatements(ctx context.Context, n int, begin func(context.Context) (transaction, error)) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	for range 5 {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?)", n, "an order of some size, as an application may have it"); err != nil {
			return err
		}
	}
	return tx.Commit()
}
