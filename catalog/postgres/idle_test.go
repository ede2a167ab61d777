package postgres_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A halting is a tracer that stops its process, once, behind the first statement with
// a text in it.
type halting struct {
	text           string
	once           sync.Once
	halted, resume chan struct{}
}

func (h *halting) behind(sql string) {
	if strings.Contains(sql, h.text) {
		h.once.Do(func() {
			close(h.halted)
			<-h.resume
		})
	}
}

type statementKey struct{}

func (h *halting) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, data.SQL)
}

func (h *halting) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if sql, ok := ctx.Value(statementKey{}).(string); ok {
		h.behind(sql)
	}
}

func (h *halting) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (h *halting) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	h.behind(data.SQL)
}

func (h *halting) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TestAProcessThatStopsWhileItWritesBesideTheLogKeepsNoClaimOut has one stop while it
// makes the schema for its first note, and while it records a loss.
func TestAProcessThatStopsWhileItWritesBesideTheLogKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]struct {
		behind string
		write  func(t *testing.T, s *postgres.Store) error
	}{
		"a first note": {"insert into fencepost.board", func(t *testing.T, s *postgres.Store) error {
			_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte(`{}`)})
			return err
		}},
		"a loss": {"left join fencepost.head", func(t *testing.T, s *postgres.Store) error {
			l, err := s.Losses(within(t, soon))
			if err == nil {
				l.Text = []byte("lost")
				_, err = s.PutLosses(within(t, soon), l, nil)
			}
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testpg.URL(t)
			h := &halting{text: part.behind, halted: make(chan struct{}), resume: make(chan struct{})}
			pool := poolTracedBy(t, dsn, h)
			t.Cleanup(pool.Close)
			s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool, ClaimIdle: 300 * time.Millisecond})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			goOn := sync.OnceFunc(func() { close(h.resume) })
			t.Cleanup(goOn)
			if name == "a loss" {
				claim(t, open(t, dsn))
			}
			ended := make(chan error, 1)
			for halted := false; !halted; { // a busy machine may be idle for so long before
				go func() { ended <- part.write(t, s) }()
				select {
				case <-h.halted:
					halted = true
				case <-ended:
				}
			}
			_, err = tryClaim(within(t, 20*time.Second), open(t, dsn))
			require.NoError(t, err)
			goOn()
			<-ended
		})
	}
}
