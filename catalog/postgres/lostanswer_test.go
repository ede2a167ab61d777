package postgres_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAWriteWithoutAnAnswerIsUnknownThoughItHasLanded is about every write but a
// commit, a claim and a publish, which have such a test each. The connection breaks
// when the server answers the message by which the write lands.
func TestAWriteWithoutAnAnswerIsUnknownThoughItHasLanded(t *testing.T) {
	t.Parallel()
	type write func(context.Context, *postgres.Store, driver.Head) error
	post := func(ctx context.Context, s *postgres.Store, _ driver.Head) error {
		_, err := s.Post(ctx, driver.Note{Key: "k", Value: []byte("v")})
		return err
	}
	for name, c := range map[string]struct {
		claimed bool
		by      string // the message begins with it
		write   write
		landed  string
	}{
		"the first note of a database": {false, commits, post, `exists (select from fencepost.board where key = 'k')`},
		"a note":                       {true, "insert into fencepost.board", post, `exists (select from fencepost.board where key = 'k')`},
		"a record of losses": {true, commits, func(ctx context.Context, s *postgres.Store, head driver.Head) error {
			l, err := s.Losses(ctx)
			if err == nil {
				l.Text = []byte("lost")
				_, err = s.PutLosses(ctx, l, &head)
			}
			return err
		}, `exists (select from fencepost.board where value = 'lost')`},
		"a part": {true, "insert into fencepost.part", func(ctx context.Context, s *postgres.Store, head driver.Head) error {
			return s.Stage(ctx, head.Claim, driver.NewID(), 0, []byte("part"))
		}, `exists (select from fencepost.part)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testpg.URL(t)
			var head driver.Head
			if c.claimed {
				head = claim(t, open(t, dsn))
			}
			p, through := newProxy(t, withParam(t, dsn, "default_query_exec_mode", "exec")) // the text goes with each statement
			s, gate := gated(t, through, postgres.Config{})
			gate.before(t, c.by)
			done := async(func() error { return c.write(within(t, soon), s, head) })
			select {
			case <-gate.reached:
			case err := <-done:
				require.Fail(t, "it ended before", "%v", err)
			}
			p.mute.Store(true)
			gate.open()
			fails(t, <-done, exitcodes.Retry, driver.Unknown)
			look := testpg.Connect(t, dsn)
			require.Eventually(t, func() bool {
				var landed bool
				return look.QueryRow(t.Context(), `select `+c.landed).Scan(&landed) == nil && landed
			}, soon, often)
		})
	}
}
