package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
)

// TestAClaimThatAProgramBlocksByALockOnTheClaimFileNamesIt is about a lock that
// takes nothing but the right to read the file.
func TestAClaimThatAProgramBlocksByALockOnTheClaimFileNamesIt(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"--exclusive", "--shared"} {
		t.Run(how, func(t *testing.T) {
			path, _ := claimed(t)
			program := exec.CommandContext(t.Context(), "flock", how, "--no-fork", path+"-claim", "sleep", "600")
			require.NoError(t, program.Start())
			s := open(t, path)
			var err error
			require.Eventually(t, func() bool {
				var c *catalog.Catalog
				if c, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 1, ClaimTimeout: 100 * time.Millisecond}); err == nil {
					_ = c.Close() // the program has no lock yet
				}
				return errors.Is(err, driver.ErrBlocked)
			}, time.Minute, time.Millisecond, "%v", err)
			require.ErrorContains(t, err, fmt.Sprintf("process %d ", program.Process.Pid))
			require.ErrorContains(t, err, path+"-claim")
			require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
			require.NoError(t, program.Process.Kill())
			require.Error(t, program.Wait())
			c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
}

func TestAClaimWhoseTimeIsOverBeforeItsFirstLookWasBlockedByNobody(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	s := open(t, path)
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for range 20 {
		_, err := s.Claim(over)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, driver.ErrBlocked)
		require.NotContains(t, err.Error(), "another write")
	}
	claiming, err := s.Claim(t.Context())
	require.NoError(t, err)
	defer claiming.Abandon()
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = s.Claim(short)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, "another write of this process is under way")
}

// TestAReaderOfTheFileKeepsNoClaimOut is about a backup, or a shell that looks.
func TestAReaderOfTheFileKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
	path, before := claimed(t)
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), `select count(*) from sqlite_schema`).Scan(&n)) // from here on it sees one instant
	s := open(t, path)
	head := drivertest.Install(t, s, before.Claim.Token.Generation)
	require.Equal(t, before.Claim.ID, head.Claim.PriorClaim)
	drivertest.Append(t, s, head, []byte("goes on"))
}
