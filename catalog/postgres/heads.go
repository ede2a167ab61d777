package postgres

import (
	"cmp"
	"context"
	"fmt"

	"github.com/fencepost/fencepost/internal/gather"
)

// headsAtOnce bounds how many heads one statement reads: some hundred KiB.
const headsAtOnce = 1000

// headsSQL is absentSQL for many catalogs, with a row for each, in their order.
const headsSQL = `select ` + serverSQL + `,
	(select version from fencepost.schema_version),
	h.revision, h.commit_id, h.claim,
	h.catalog is null and (exists (select from fencepost.log l where l.catalog = wanted.catalog)
		or exists (select from fencepost.snapshot s where s.catalog = wanted.catalog)
		or exists (select from fencepost.part p where p.catalog = wanted.catalog)),
	` + hiddenSQL + `
	from pg_catalog.unnest($1::text[]) with ordinality as wanted(catalog, n) left join fencepost.head h on h.catalog = wanted.catalog
	order by wanted.n`

// lookAlone reads the state of one catalog. Where the connection was broken it
// tries another one.
func lookAlone(ctx context.Context, s *Store) (state, error) {
	st, broken, err := s.look(ctx)
	if broken {
		st, _, err = s.look(ctx)
	}
	return st, err
}

// lookTogether reads the states of several catalogs by one statement, and does
// as lookAlone does about a broken connection.
func (l *links) lookTogether(ctx context.Context, stores []*Store) []gather.Answer[state] {
	answers, broken, err := l.tryTogether(ctx, stores)
	if broken {
		answers, _, err = l.tryTogether(ctx, stores)
	}
	switch {
	case err == nil:
		return answers
	case undefined(err): // no schema yet: each says so for itself
		for i, s := range stores {
			answers[i].Value, answers[i].Err = lookAlone(ctx, s)
		}
	default:
		for i := range answers {
			answers[i] = gather.Answer[state]{Err: err}
		}
	}
	return answers
}

func (l *links) tryTogether(ctx context.Context, stores []*Store) (answers []gather.Answer[state], broken bool, err error) {
	answers = make([]gather.Answer[state], len(stores))
	conn, err := l.acquire(ctx, l.liveness)
	if err != nil {
		return answers, false, err
	}
	defer l.give(conn)
	err = l.readHeads(ctx, conn, stores, answers)
	broken = l.broke(ctx, conn)
	l.leave(conn, cmp.Or(err, wrongPlace(answers)))
	return answers, broken, err
}

// wrongPlace returns the first answer that came from a server which is not the
// one to write to.
func wrongPlace(answers []gather.Answer[state]) error {
	for _, a := range answers {
		if wrongServer(a.Err) {
			return a.Err
		}
	}
	return nil
}

func (l *links) readHeads(ctx context.Context, q querier, stores []*Store, answers []gather.Answer[state]) error {
	names := make([]string, len(stores))
	for i, s := range stores {
		names[i] = s.catalog
	}
	rows, err := q.Query(ctx, headsSQL, l.args(names)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for ; n < len(stores) && rows.Next(); n++ {
		answers[n].Value, answers[n].Err = stores[n].scanHead(rows)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	if n < len(stores) {
		return fmt.Errorf("%w: asked for %d heads, got %d", errMisuse, len(stores), n)
	}
	for i, s := range stores {
		if answers[i].Err == nil {
			answers[i].Err = s.admit(ctx, q, answers[i].Value)
		}
	}
	return nil
}
