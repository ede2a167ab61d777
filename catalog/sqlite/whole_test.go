package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
)

func note(t *testing.T, s driver.Store, key string) {
	t.Helper()
	_, err := s.Post(t.Context(), driver.Note{Key: key, Value: []byte("{}")})
	require.NoError(t, err)
}

// older makes a file as builds did that knew nothing of what a file says: all is
// in the WAL. Statements follow the schema, if there are any. The returned function
// ends that process.
func older(t *testing.T, path string, statements ...string) (end func()) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	schema, err := os.ReadFile(filepath.Join("testdata", "schema.v1.sql"))
	require.NoError(t, err)
	all := append([]string{"PRAGMA journal_mode = WAL"}, statements...)
	if len(statements) > 0 {
		all[1] = string(schema) + "PRAGMA application_id = 0x464e4350; PRAGMA user_version = 1;" + all[1]
	}
	for _, s := range all {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
	return func() { require.NoError(t, db.Close()) }
}

const olderNote = `INSERT INTO board (key, value, version) VALUES ('k', x'7b7d', 7)`

// incomplete asserts that nobody reads, claims or writes what is at path.
func incomplete(t *testing.T, path string) {
	t.Helper()
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	for range 2 { // the first look makes an empty WAL
		s := open(t, path)
		_, err := s.Head(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt)
		require.ErrorContains(t, err, "it lacks what was in its WAL")
		require.ErrorContains(t, err, "put the -wal that belongs to this file back")
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		_, err = s.Claim(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt)
		_, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 9})
		require.ErrorIs(t, err, driver.ErrCorrupt)
		_, err = catalog.Follow(t.Context(), s, catalog.Config{})
		require.ErrorIs(t, err, driver.ErrCorrupt)
		require.NoError(t, s.Close())
	}
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "the file was changed")
}

func TestAFileThatWasCutOffFromItsFirstClaimIsIncompleteAndNeverUnclaimed(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*testing.T, string){
		"the claim made the file": func(*testing.T, string) {},
		"notes came first":        func(t *testing.T, path string) { s := open(t, path); note(t, s, "a"); note(t, s, "b") },
		"notes came first, and a clean end": func(t *testing.T, path string) {
			s := open(t, path)
			note(t, s, "a")
			require.NoError(t, s.Close())
		},
		"a claim failed": func(t *testing.T, path string) {
			s := open(t, path)
			c, err := s.Claim(t.Context())
			require.NoError(t, err)
			c.Abandon()
			require.NoError(t, s.Close())
		},
		"an older build's notes":   func(t *testing.T, path string) { t.Cleanup(older(t, path, olderNote)) },
		"an empty file was there":  func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		"an empty database":        func(t *testing.T, path string) { raw(t, path, "CREATE TABLE t (a)", "DROP TABLE t") },
		"the process was killed":   func(t *testing.T, path string) { plays(t, "notes", path).done().dies() },
		"a dead first claim":       func(t *testing.T, path string) { killed(t, "claims", path, step.FileMarked) },
		"a dead announcement":      func(t *testing.T, path string) { killed(t, "claims", path, step.FileAnnounced) },
		"a claim that was written": func(t *testing.T, path string) { killed(t, "claims", path, step.ClaimLogWritten) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.db")
			before(t, path)
			s := open(t, path)
			head := drivertest.Append(t, s, drivertest.Install(t, s, 1), nil)
			incomplete(t, alone(t, path))
			drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
			drivertest.Append(t, s, head, nil)
			require.NoError(t, s.Close())
		})
	}
}

// copied copies files of a catalog to a folder of their own.
func copied(t *testing.T, path string, suffixes ...string) string {
	t.Helper()
	copied := alone(t, path)
	for _, suffix := range suffixes {
		b, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied+suffix, b, 0o600))
	}
	return copied
}

func TestAFileOfAnOlderBuildOpensIfItsWALIsThereAndIsIncompleteIfNot(t *testing.T) {
	t.Parallel()
	claim, err := os.ReadFile(filepath.Join("..", "driver", "testdata", "claim-first.json"))
	require.NoError(t, err)
	commit := `SELECT unhex(replace(json_extract(claim, '$.id'), '-', '')) FROM claim`
	for name, statements := range map[string][]string{
		"notes": {olderNote},
		"a claim": {
			olderNote,
			fmt.Sprintf("INSERT INTO claim (revision, claim) VALUES (1, '%s')", strings.TrimSpace(string(claim))),
			"INSERT INTO log (revision, commit_id, generation, epoch, payload) VALUES (1, (" + commit + "), 1, 1, x'')",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.db")
			defer older(t, path, statements...)()
			incomplete(t, alone(t, path))
			s := open(t, copied(t, path, "-wal"))
			head := drivertest.ReadHead(t, s)
			require.Equal(t, name == "notes", head.IsZero())
			notes, err := s.Notes(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, notes, 1)
			if head.IsZero() {
				head = drivertest.Install(t, s, 9)
			} else {
				head = drivertest.Append(t, s, head, nil)
			}
			require.NoError(t, s.Close())
			wholeAt(t, s.String()[len("sqlite:"):], head)
		})
	}
}

func TestAPartOfAFileIsNoUnclaimedCatalog(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, size := range []int{1, 16, 99, 100, 511, 512, 4095, 4096, 8192, len(whole) - 4096, len(whole) - 1} {
		part := filepath.Join(t.TempDir(), "c.db")
		require.NoError(t, os.WriteFile(part, whole[:size], 0o600))
		s := open(t, part)
		_, err := s.Head(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt, "%d bytes", size)
		_, err = s.Claim(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt, "%d bytes", size)
		after, err := os.ReadFile(part)
		require.NoError(t, err)
		require.Equal(t, whole[:size], after, "%d bytes", size)
	}
}

// TestACatalogThatNobodyClaimedSaysSo: notes may come before the first claim, and
// a first claim may fail.
func TestACatalogThatNobodyClaimedSaysSo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	note(t, s, "a")
	c, err := s.Claim(t.Context())
	require.NoError(t, err)
	c.Abandon()
	require.NoError(t, s.Close())
	s = open(t, alone(t, path))
	require.True(t, drivertest.ReadHead(t, s).IsZero())
	notes, err := s.Notes(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, notes, 1)
	drivertest.Install(t, s, 1)
}

// killed has a child kill itself at point.
func killed(t *testing.T, part, path string, point step.Point) {
	t.Helper()
	p := plays(t, part, path, diesAt(point))
	require.NoError(t, p.stdin.Close())
	require.ErrorContains(t, p.cmd.Wait(), "signal: killed", "%s was not reached", point)
}

func TestAProcessThatDiesWhileTheFileIsMadeLeavesNothingOrACatalog(t *testing.T) {
	t.Parallel()
	points := append(step.Creation(), step.ClaimBegun, step.ClaimMigrated, step.ClaimHeadWritten, step.ClaimLogWritten, step.ClaimCommitted)
	for _, point := range points {
		path := filepath.Join(t.TempDir(), "c.db")
		killed(t, "claims", path, point)
		if point != step.FileNamed { // the second one meets what the first one has left
			killed(t, "claims", path, point)
		}
		want := 0
		if point == step.ClaimCommitted {
			want = 2
		}
		s := open(t, path)
		require.EqualValues(t, want, drivertest.ReadHead(t, s).Claim.Token.Epoch, point)
		c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.NoError(t, err, point)
		require.EqualValues(t, want+1, c.Token().Epoch, point)
		require.NoError(t, c.Close())
		nothingIsLeft(t, path)
		require.NoError(t, s.Close())
		wholeAt(t, path, c.Head())
		files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		require.NoError(t, err)
		require.ElementsMatch(t, []string{path, path + "-claim", path + "-wal", path + "-shm"}, files, point)
	}
	for _, point := range step.Creation()[:3] {
		path := filepath.Join(t.TempDir(), "c.db")
		killed(t, "notes", path, point)
		s := open(t, path)
		require.True(t, drivertest.ReadHead(t, s).IsZero())
		note(t, s, "a")
		drivertest.Install(t, s, 1)
	}
}

// TestADatabaseThatAnOlderBuildHasMadeMeanwhileIsNotReplaced: an older build locks
// no -claim file to make one.
func TestADatabaseThatAnOlderBuildHasMadeMeanwhileIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, point := range []step.Point{step.FileCreated, step.FileWritten} {
		path := filepath.Join(t.TempDir(), "c.db")
		var made os.FileInfo
		ctx := step.With(t.Context(), func(p step.Point) {
			if p != point {
				return
			}
			t.Cleanup(older(t, path, olderNote))
			var err error
			made, err = os.Lstat(path)
			require.NoError(t, err)
		})
		s := open(t, path)
		_, err := s.Post(ctx, driver.Note{Key: "a", Value: []byte("{}")})
		require.NoError(t, err)
		now, err := os.Lstat(path)
		require.NoError(t, err)
		require.True(t, os.SameFile(made, now), "%s: the older build writes to a file without a name", point)
		notes, err := s.Notes(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, notes, 2, point)
		require.NoFileExists(t, path+"-new")
		drivertest.Install(t, s, 1)
	}
}

func TestManyProcessesMakeOneFileAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	var all []*player
	for range 3 {
		all = append(all, plays(t, "notes", path), plays(t, "claims", path), plays(t, "looks", path))
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s, err := sqlite.Open(path, sqlite.Config{})
			if err == nil {
				_, err = s.Post(t.Context(), driver.Note{Key: fmt.Sprint(i), Value: []byte("{}")})
				err = errors.Join(err, s.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, p := range all {
		p.done()
	}
	for _, p := range all {
		p.ends()
	}
	s := open(t, path)
	head := drivertest.ReadHead(t, s)
	history := drivertest.ReadClaims(t, s, 0)
	require.NotEmpty(t, history)
	for i, c := range history {
		require.EqualValues(t, i+1, c.Token.Epoch)
	}
	notes, err := s.Notes(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, notes, 4+3+1, "and that of the store's check")
	wholeAt(t, path, head)
	require.NoError(t, s.Close())
}
