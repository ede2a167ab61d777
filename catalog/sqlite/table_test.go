package sqlite

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testlists"
)

// source is SQLite in Go: it is long, and read once.
var source struct {
	once  sync.Once
	codes map[string]int
	texts int // how many primary codes SQLite has a place for, for a text of each
}

// load reads the client's source.
func load(t testing.TB) {
	t.Helper()
	source.once.Do(func() {
		lib := testlists.Source(t, "modernc.org/sqlite/lib")
		source.codes, source.texts = lib.Numbers("SQLITE_", ""), lib.Length("_aMsg")
	})
	require.GreaterOrEqual(t, source.texts, 29)
}

// upstream returns SQLite's result codes, as the client's source has them.
func upstream(t testing.TB) map[string]int {
	t.Helper()
	load(t)
	all := maps.Clone(source.codes)
	codes, names := primaries(source.texts, sqlite.ErrorCodeString)
	maps.DeleteFunc(all, func(name string, code int) bool {
		return !names.MatchString(name) || !slices.Contains(codes, code&0xff)
	})
	require.GreaterOrEqual(t, len(all), 114)
	return all
}

// primaries returns the primary codes, and what the name of a code looks like
// that is one of them or extends one. They are as many as SQLite has places for
// their texts, and those that the client has a text for: each of the two alone
// would do, but only as long as both go on being kept.
func primaries(places int, texts map[int]string) (codes []int, names *regexp.Regexp) {
	for code := range places {
		codes = append(codes, code)
	}
	known := []string{"OK"}
	inText := regexp.MustCompile(`\(SQLITE_([A-Z]+)\)$`)
	for code, text := range texts {
		if found := inText.FindStringSubmatch(text); found != nil && code <= 0xff {
			codes, known = append(codes, code), append(known, found[1])
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes), regexp.MustCompile(`^SQLITE_(` + strings.Join(known, "|") + `)(_|$)`)
}

// without returns which of the codes no entry of the table has.
func without(table driver.Table, codes []int) (missing []string) {
	texts := make([]string, 0, len(codes))
	for _, code := range codes {
		texts = append(texts, strconv.Itoa(code))
	}
	return testlists.Missing(table, texts)
}

func TestTheTableHasEveryPrimaryResultCode(t *testing.T) {
	t.Parallel()
	load(t)
	codes, names := primaries(source.texts, sqlite.ErrorCodeString)
	require.GreaterOrEqual(t, len(codes), 31)
	require.Empty(t, without(Errors(), codes))
	require.False(t, names.MatchString("SQLITE_NEWS"))

	one, _ := primaries(source.texts+1, sqlite.ErrorCodeString)
	require.Equal(t, []string{"29"}, without(Errors(), one), "one more in SQLite")
	texts := maps.Clone(sqlite.ErrorCodeString)
	texts[102] = "Something new (SQLITE_NEWS)"
	two, names := primaries(source.texts, texts)
	require.Equal(t, []string{"102"}, without(Errors(), two), "one more in the client")
	require.True(t, names.MatchString("SQLITE_NEWS_AGAIN"), "then its extended codes are looked for too")

	for i, f := range Errors().Families {
		for j, e := range f.Entries {
			if code, err := strconv.Atoi(e.Code); err != nil || code > 0xff {
				continue
			}
			less := Errors()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.Equal(t, []string{e.Code}, without(less, codes), "without %s", e.Name)
		}
	}
}

func TestTheTableHasEveryResultCodeOfSQLite(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
