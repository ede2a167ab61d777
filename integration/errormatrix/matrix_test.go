package errormatrix

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	modernc "modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// fewest is how many entries the servers themselves must have been made to
// produce to calls of the drivers, in all three stores together.
const fewest = 60

// A way is how an error came about. A code counts once, by the first of its ways.
type way int

const (
	met       way = iota // a call of the driver's met it, as an operator's mistake or an accident makes it
	statement            // a statement in an operator's trigger failed under the driver's own
	asked                // an administrator's call got it as its answer, and the table was asked about that
	raised               // a trigger raised it by its code
	ways
)

func (w way) String() string {
	return [...]string{
		"by the server itself, to a call of the driver's",
		"by the server itself, to a statement in an operator's trigger",
		"by the server itself, to an administrator's call",
		"raised by a trigger in it",
	}[w]
}

// A matrix is what was provoked of one table.
type matrix struct {
	table driver.Table

	mu   sync.Mutex
	seen map[string]way // by family and code
}

func newMatrix(table driver.Table) *matrix {
	return &matrix{table: table, seen: map[string]way{}}
}

// name says which entry a meaning is.
func name(m driver.Meaning) string {
	if m.Entry.Name == "" || m.Entry.Name == m.Code || strings.Contains(m.Entry.Name, " ") {
		return m.Family + " " + m.Code
	}
	return m.Family + " " + m.Code + " " + m.Entry.Name
}

// saw notes that an entry was provoked. What a driver says by itself is no
// answer of a server, and is not counted.
func (x *matrix) saw(m driver.Meaning, w way) {
	if m.Family == "driver" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if first, ok := x.seen[name(m)]; !ok || w < first {
		x.seen[name(m)] = w
	}
}

// expect requires that err is the entry with a code, and came out of the driver
// with the class that the table has for it. After says that the commit was sent.
func (x *matrix) expect(t *testing.T, w way, code string, after bool, err error) {
	t.Helper()
	m := x.judged(t, after, err)
	require.Equal(t, code, m.Code, "%v", err)
	x.saw(m, w)
}

// judged requires that err came out of the driver as its table says.
func (x *matrix) judged(t *testing.T, after bool, err error) driver.Meaning {
	t.Helper()
	m, wrong := judge(x.table, err, after)
	require.NoError(t, wrong)
	return m
}

// judge returns the entry that an error of a driver has in its table, and what
// does not agree with that.
func judge(table driver.Table, err error, after bool) (driver.Meaning, error) {
	var own *driver.Error
	if !errors.As(err, &own) {
		return driver.Meaning{}, fmt.Errorf("no driver classified %T %w", err, err)
	}
	m := table.Of(cause(own.Err))
	if said := table.Of(own.Err); said.Family == "SQLSTATE and more" {
		m = said // the moment of an answer, which stands around it
	}
	if m.Basis != driver.Listed {
		return m, fmt.Errorf("%w: %v rests on %v", err, m.Code, m.Basis)
	}
	as := m
	for _, reworded := range []error{driver.ErrConflict, driver.ErrBlocked} {
		if said := table.Of(own.Err); errors.Is(own.Err, reworded) && said.Family == "driver" {
			as = said // the driver knows more than the code says
		}
	}
	if said := table.Of(own.Err); said.Family == "driver" && said.Code == "not opened" {
		as = said // likewise, of a file that SQLite could not open
	}
	want := as.Class(after)
	if pg := new(pgconn.PgError); errors.As(err, &pg) && after && pg.SeverityUnlocalized != "ERROR" {
		want.Outcome = driver.Unknown
	}
	code := want.Code
	if code == 0 {
		code = want.Disposition.Code()
	}
	switch {
	case own.Class != want:
		return m, fmt.Errorf("%w: is %+v, the table says %+v", err, own.Class, want)
	case exitcodes.Of(err) != want.Disposition, want.Disposition != exitcodes.None && exitcodes.CodeOf(err) != code:
		return m, fmt.Errorf("%w: %v and status %d, the table says %v and %d", err, exitcodes.Of(err), exitcodes.CodeOf(err), want.Disposition, code)
	case as.Entry.Is != nil && !errors.Is(err, as.Entry.Is):
		return m, fmt.Errorf("%w: is not %q", err, as.Entry.Is)
	}
	return m, nil
}

// cause returns what the server or its client said, without what the driver
// put around it.
func cause(err error) error {
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		return pg
	}
	if own := new(modernc.Error); errors.As(err, &own) {
		return own
	}
	var server rpctypes.EtcdError
	if errors.As(err, &server) {
		return server
	}
	return err
}

// count returns how many entries were provoked in a way.
func (x *matrix) count(w way) int {
	n := 0
	for _, seen := range x.seen {
		if seen == w {
			n++
		}
	}
	return n
}

// print lists all entries of the table, but for the driver's own.
func (x *matrix) print() {
	var text strings.Builder
	var all, missing []string
	for _, f := range x.table.Families {
		if f.Name == "driver" {
			continue
		}
		for _, e := range f.Entries {
			entry := name(driver.Meaning{Family: f.Name, Code: e.Code, Entry: e})
			all = append(all, entry)
			if _, ok := x.seen[entry]; !ok {
				missing = append(missing, entry)
			}
		}
	}
	fmt.Fprintf(&text, "%s: %d entries\n", x.table.Store, len(all))
	list := func(title string, entries []string) {
		fmt.Fprintf(&text, "  %s: %d: %s\n", title, len(entries), strings.Join(entries, ", "))
	}
	for w := range ways {
		list(w.String(), slices.DeleteFunc(slices.Clone(all), func(entry string) bool {
			seen, ok := x.seen[entry]
			return !ok || seen != w
		}))
	}
	list("not provoked", missing)
	fmt.Fprint(os.Stdout, text.String())
}

func TestRealServersProduceTheErrorsOfTheTables(t *testing.T) {
	stores := []struct {
		name string
		run  func(*testing.T) *matrix
	}{{"postgres", provokePostgres}, {"sqlite", provokeSQLite}, {"etcd", provokeEtcd}}
	results := make([]*matrix, len(stores))
	t.Run("in", func(t *testing.T) {
		for i, s := range stores {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				results[i] = s.run(t)
			})
		}
	})
	itself, calls := 0, 0
	for _, x := range results {
		require.NotNil(t, x)
		x.print()
		others := x.count(met) + x.count(statement) + x.count(asked)
		fmt.Printf("%s: by the server itself: %d (of these %d in a trigger, %d to an administrator), raised by a trigger in it: %d\n",
			x.table.Store, others, x.count(statement), x.count(asked), x.count(raised))
		itself, calls = itself+others, calls+x.count(met)
	}
	fmt.Printf("by the servers themselves, in all stores: %d, of these to calls of the drivers: %d\n", itself, calls)
	require.GreaterOrEqual(t, calls, fewest, "distinct codes from real servers")
}
