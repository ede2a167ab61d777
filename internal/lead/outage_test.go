//go:build unix

package lead_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

func TestACommandIsKilledWhileTheStoreIsAwayForLongerThanItsLeaseAndStartedAnewUnderTheSameToken(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "1s"}, s.shell("blue", `echo $FENCEPOST_TOKEN >>$E; `+obeys)...)...)
	blue.happens("up")
	db, err := sql.Open("sqlite", "file:"+s.path("catalog.db")+"?_pragma=busy_timeout(30000)")
	require.NoError(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "begin immediate")
	require.NoError(t, err)
	blue.says("to=Unconfirmed")
	s.free()
	require.NotContains(t, blue.events(), "asked")
	_, err = conn.ExecContext(t.Context(), "rollback")
	require.NoError(t, err)
	blue.eventually(func() bool { return strings.Count(blue.events(), "up\n") == 2 }, "a second start")
	require.Equal(t, 2, strings.Count(blue.events(), "g1.e1\n"))
}
