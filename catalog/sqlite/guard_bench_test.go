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
// in rounds that are guarded and rounds that are not, in turn. What it reports is the
// median time of a transaction, and guarded over unguarded.
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
			ways := []func(context.Context) (transaction, error){
				func(ctx context.Context) (transaction, error) { return db.BeginTx(ctx, nil) },
				func(ctx context.Context) (transaction, error) { return sqlite.Begin(ctx, db, blue.Token()) },
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
			unguarded, guarded := took[0][len(took[0])/2], took[1][len(took[1])/2]
			b.ReportMetric(float64(unguarded.Microseconds()), "unguarded-µs/tx")
			b.ReportMetric(float64(guarded.Microseconds()), "guarded-µs/tx")
			b.ReportMetric(float64(guarded)/float64(unguarded), "guarded/unguarded")
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
