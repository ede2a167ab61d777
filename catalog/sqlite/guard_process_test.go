package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/teststop"
)

// The parts of children that hold g1.e1. Each has the catalog's file attached to one
// of its own.
const (
	partStops   = "guarded: stops in a transaction"
	partZombie  = "guarded: stops before a transaction"
	partCommits = "guarded: commits until it is killed"
)

// guarded plays such a part.
func guarded(part, path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return err
	}
	db, err := s.OpenDB(path + "-app")
	if err != nil {
		return err
	}
	if part == partCommits {
		return commitGuarded(ctx, db)
	}
	if part == partZombie {
		stop()
	}
	tx, err := sqlite.Begin(ctx, db, token(1, 1), sqlite.TotalLimit(time.Hour), sqlite.ClaimAfter(time.Hour))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (1)"); err != nil {
		return err
	}
	if part == partStops {
		stop()
	}
	return tx.Commit()
}

// stop stops this process, as SIGSTOP does, until it is continued.
func stop() {
	fmt.Println("stopping")
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-continued
}

func commitGuarded(ctx context.Context, db *sqlite.DB) error {
	for n := 1; ; n++ {
		tx, err := sqlite.Begin(ctx, db, token(1, 1))
		if err != nil {
			return err
		}
		for _, table := range []string{"orders", "items"} {
			if _, err := tx.ExecContext(ctx, "INSERT INTO "+table+" VALUES (?)", n); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		fmt.Println("acknowledged", n)
	}
}

// starts starts a child on a new catalog of g1.e1, and waits for its first line.
func starts(t *testing.T, part string) (cmd *exec.Cmd, out *bufio.Reader, path string, db *sql.DB) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, holder(t, path, 1).Close())
	db = database(t, path+"-app", "immediate")
	raws(t, db, "CREATE TABLE orders (n)", "CREATE TABLE items (n)")
	cmd = child(t, part, path)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out = bufio.NewReader(stdout)
	if part != partCommits {
		requireLine(t, out, "stopping")
		teststop.Await(t, cmd.Process.Pid)
	}
	return cmd, out, path, db
}

func requireLine(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, want)
}

func TestAProcessThatIsStoppedInAGuardedTransactionIsNamedByTheClaimThatItBlocks(t *testing.T) {
	t.Parallel()
	cmd, out, path, db := starts(t, partStops)
	cfg := catalog.Config{Generation: 2, ClaimTimeout: 3 * time.Second}
	_, err := catalog.Open(t.Context(), open(t, path), cfg)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, fmt.Sprintf("process %d (%s), which is stopped: continue or kill it", cmd.Process.Pid, filepath.Base(os.Args[0])))
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))

	own := database(t, path, "immediate")
	failsBy(t, fmt.Sprintf("process %d ", cmd.Process.Pid), func(ctx context.Context) error {
		_, err := sqlite.Begin(ctx, own, token(1, 1))
		return err
	})

	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.NoError(t, cmd.Wait(), out)
	require.Equal(t, 1, rowsIn(t, db, "orders"), "nobody had claimed: it was the holder's, and committed")
	cfg.ClaimTimeout = 0
	green, err := catalog.Open(t.Context(), open(t, path), cfg)
	require.NoError(t, err)
	require.NoError(t, green.Close())
}

func TestAProcessThatIsKilledInAGuardedTransactionBlocksNobodyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	cmd, _, path, db := starts(t, partStops)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	holder(t, path, 2)
	require.Zero(t, rowsIn(t, db, "orders"))
}

func TestAZombieThatIsContinuedBehindItsSuccessorWritesNothing(t *testing.T) {
	t.Parallel()
	cmd, out, path, db := starts(t, partZombie)
	holder(t, path, 2)
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	requireLine(t, out, "refused by sqlite catalog: held g1.e1, the newest is g2.e2 of holder 2")
	require.Error(t, cmd.Wait())
	require.Zero(t, rowsIn(t, db, "orders"))
}

// TestAKilledProcessLeavesAllOfAGuardedCommitOrNothing kills a child that commits to a
// file of its own, over the lock of the catalog's. Only the one file is written, so
// that nothing can be torn between the two.
func TestAKilledProcessLeavesAllOfAGuardedCommitOrNothing(t *testing.T) {
	t.Parallel()
	for after := range 6 {
		cmd, out, path, db := starts(t, partCommits)
		acknowledged := 0
		for line := ""; acknowledged <= 3*after; {
			var err error
			line, err = out.ReadString('\n')
			require.NoError(t, err)
			_, err = fmt.Sscanf(line, "acknowledged %d", &acknowledged)
			require.NoError(t, err, line)
		}
		require.NoError(t, cmd.Process.Kill())
		for {
			line, err := out.ReadString('\n')
			if err != nil {
				break
			}
			_, _ = fmt.Sscanf(line, "acknowledged %d", &acknowledged)
		}
		require.Error(t, cmd.Wait())
		green := holder(t, path, 2)
		orders, items := rowsIn(t, db, "orders"), rowsIn(t, db, "items")
		require.Equal(t, orders, items)
		require.Contains(t, []int{acknowledged, acknowledged + 1}, orders)
		require.NoError(t, put(t.Context(), green, "k", nil))
		var found string
		require.NoError(t, database(t, path, "deferred").QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&found))
		require.Equal(t, "ok", found)
	}
}

// TestAnOlderFileGetsItsGuardByTheNextClaim plays a file that a build made which knows
// no guards.
func TestAnOlderFileGetsItsGuardByTheNextClaim(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	raw(t, path, "DROP VIEW fencepost_token", "DROP VIEW fencepost_issued")
	db := database(t, path, "immediate")
	_, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.ErrorIs(t, err, sqlite.ErrNoGuards)
	require.ErrorContains(t, err, "open the catalog by a build that knows guards")
	require.NoError(t, put(t.Context(), blue, "k", nil))

	green := holder(t, path, 2)
	_, err = sqlite.Begin(t.Context(), db, blue.Token())
	stale(t, err, blue.Token(), green.Token())
	tx, err := sqlite.Begin(t.Context(), db, green.Token())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
}

func TestANameThatSomebodyElseHasTakenStopsNoClaim(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, holder(t, path, 1).Close())
	raw(t, path, "DROP VIEW fencepost_token", "CREATE TABLE fencepost_token (n)")
	green := holder(t, path, 2)
	_, err := sqlite.Begin(t.Context(), database(t, path, "immediate"), green.Token())
	require.ErrorIs(t, err, sqlite.ErrNoGuards)
}

// TestTheViewsShowEveryTokenThatWasIssued reads them as a program in any language may.
func TestTheViewsShowEveryTokenThatWasIssued(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	for _, g := range []uint64{3, 3, 12, 1<<63 - 1} {
		require.NoError(t, holder(t, path, g).Close())
	}
	db := database(t, path, "deferred")
	rows, err := db.QueryContext(t.Context(), "SELECT generation, epoch, token, revision FROM fencepost_issued ORDER BY revision")
	require.NoError(t, err)
	var all []string
	for rows.Next() {
		var g, e, revision int64
		var text string
		require.NoError(t, rows.Scan(&g, &e, &text, &revision))
		all = append(all, fmt.Sprint(g, " ", e, " ", text, " ", revision))
	}
	require.NoError(t, errors.Join(rows.Err(), rows.Close()))
	require.Equal(t, []string{"3 1 g3.e1 1", "3 2 g3.e2 2", "12 3 g12.e3 3", "9223372036854775807 4 g9223372036854775807.e4 4"}, all)
	var now fence.Token
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT token FROM fencepost_token").Scan(&now))
	require.Equal(t, token(1<<63-1, 4), now)
}
