package sqlite

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testlists"
)

// resultCode is what the name of a result code of SQLite's looks like.
var resultCode = regexp.MustCompile(`^SQLITE_(OK|ERROR|INTERNAL|PERM|ABORT|BUSY|LOCKED|NOMEM|READONLY|INTERRUPT|IOERR|CORRUPT|` +
	`NOTFOUND|FULL|CANTOPEN|PROTOCOL|EMPTY|SCHEMA|TOOBIG|CONSTRAINT|MISMATCH|MISUSE|NOLFS|AUTH|FORMAT|RANGE|NOTADB|NOTICE|WARNING|ROW|DONE)(_|$)`)

// source is SQLite in Go: it is long, and read once.
var source struct {
	once  sync.Once
	codes map[string]int
}

// upstream returns SQLite's result codes, as the client's source has them.
func upstream(t testing.TB) map[string]int {
	t.Helper()
	source.once.Do(func() { source.codes = read(t) })
	return maps.Clone(source.codes)
}

func read(t testing.TB) map[string]int {
	all := testlists.Source(t, "modernc.org/sqlite/lib").Numbers("SQLITE_", "")
	maps.DeleteFunc(all, func(name string, code int) bool {
		primary := code & 0xff
		return !resultCode.MatchString(name) || primary > 28 && primary != 100 && primary != 101
	})
	require.GreaterOrEqual(t, len(all), 114)
	return all
}

func TestTheTableHasEveryResultCodeOfSQLite(t *testing.T) {
	codes := upstream(t)
	names := slices.Collect(maps.Keys(codes))
	require.Empty(t, testlists.Missing(Errors(), names))
	for name, code := range codes {
		m := errorTable.Of(answer(code))
		require.Contains(t, append(m.Entry.Also, m.Entry.Name), name)
	}

	require.Equal(t, []string{"SQLITE_IOERR_NEWS"}, testlists.Missing(Errors(), append(names, "SQLITE_IOERR_NEWS")), "one more upstream")
	for i, f := range Errors().Families {
		if f.Name != "result code" {
			continue
		}
		for j := range f.Entries {
			less := Errors()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.NotEmpty(t, testlists.Missing(less, names), "without %s", f.Entries[j].Name)
		}
	}
}

func TestTheTableHasEveryErrorOfTheClients(t *testing.T) {
	names := slices.Concat(
		testlists.Qualify("sqlite", testlists.Source(t, "modernc.org/sqlite").Vars("Err")),
		testlists.Qualify("sql", testlists.Source(t, "database/sql").Vars("Err")),
		testlists.Qualify("driver", testlists.Source(t, "database/sql/driver").Vars("Err")),
		testlists.Qualify("fs", testlists.Source(t, "io/fs").Vars("Err")),
		testlists.Qualify("fs", testlists.Exported(testlists.Source(t, "io/fs").Types())),
		testlists.Qualify("io", testlists.Exported(testlists.Source(t, "io").Vars("E"))),
		testlists.Qualify("os", testlists.Exported(testlists.Source(t, "os").Types())),
		testlists.Qualify("fsnotify", testlists.Source(t, "github.com/fsnotify/fsnotify").Vars("Err")),
		[]string{"context.Canceled", "context.DeadlineExceeded"},
	)
	elsewhere := []string{
		"sqlite.ErrorCodeString",  // a list of texts
		"fsnotify.ErrUnsupported", // of other systems' watches
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(elsewhere, name) })
	require.Empty(t, testlists.Missing(Errors(), names))
	require.Equal(t, []string{"io.ErrNews"}, testlists.Missing(Errors(), append(names, "io.ErrNews")))
}

func TestEveryEntryHasItsReason(t *testing.T) { testlists.Check(t, Errors()) }

func TestTheTableHasEveryErrorOfOurOwn(t *testing.T) {
	testlists.CheckOwn(t, "github.com/fencepost/fencepost/catalog/sqlite", Errors(), "errLocked")
}

// answer returns an error of the client's with any code, which only it can make.
func answer(code int) error {
	e := new(sqlite.Error)
	field := reflect.ValueOf(e).Elem().FieldByName("code")
	reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().SetInt(int64(code))
	return fmt.Errorf("wrapped: %w", e)
}

func TestWhatACommitsAnswerLeavesOpen(t *testing.T) {
	for code, want := range map[int]driver.Outcome{
		5: driver.NotApplied, 261: driver.NotApplied, 6: driver.NotApplied, 13: driver.NotApplied, 2067: driver.NotApplied,
		10: driver.Unknown, 1034: driver.Unknown, 7: driver.Unknown, 11: driver.Unknown, 9: driver.Unknown,
		5 | 77<<8: driver.Unknown, // nobody knows this kind of being busy
		99:        driver.Unknown,
	} {
		require.Equal(t, want, classify(answer(code), true).Outcome, code)
		require.Equal(t, driver.NotApplied, classify(answer(code), false).Outcome, code)
	}
	require.Equal(t, exitcodes.Halt, classify(answer(10|99<<8), true).Disposition, "by its primary code")
	require.Equal(t, exitcodes.Panic, classify(answer(99), true).Disposition)
}

// judge checks what holds for any answer, and returns what it rests on.
func judge(t testing.TB, known map[int]bool, code int) driver.Basis {
	err := answer(code)
	m := errorTable.Of(err)
	class := classify(err, true)
	switch {
	case code < 0:
		require.Equal(t, driver.Unlisted, m.Basis, code) // the client has none
	case known[code]:
		require.Equal(t, driver.Listed, m.Basis, code)
	case code > 0xff && known[code&0xff]:
		require.Equal(t, driver.ByClass, m.Basis, code)
		require.Equal(t, driver.Unknown, class.Outcome, code)
	default:
		require.Equal(t, driver.Unlisted, m.Basis, code)
		require.Equal(t, exitcodes.Panic, class.Disposition, code)
		require.Equal(t, driver.Unknown, class.Outcome, code)
	}
	return m.Basis
}

func known(t testing.TB) map[int]bool {
	codes := map[int]bool{}
	for _, code := range upstream(t) {
		codes[code] = true
	}
	return codes
}

func TestNoResultCodeReachesTheDefaultUnnoticed(t *testing.T) {
	known := known(t)
	count := map[driver.Basis]int{}
	for code := range 1 << 16 {
		count[judge(t, known, code)]++
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 40_000 {
		count[judge(t, known, int(int32(random.Uint32())))]++
	}
	require.GreaterOrEqual(t, count[driver.Listed], len(known))
	require.NotZero(t, count[driver.ByClass])
	require.NotZero(t, count[driver.Unlisted])
}

func FuzzResultCode(f *testing.F) {
	known := known(f)
	for _, code := range []int{0, 5, 517, 1034, 99, 1<<31 - 1, -1} {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code int) { judge(t, known, code) })
}
