//go:build unix

package lead_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

// insert is a script that writes one row by psql, and says what came of it.
const insert = `psql -X -q -v ON_ERROR_STOP=1 -v VERBOSITY=verbose "$FENCEPOST_GUARDED_URL" -c "insert into orders values ('$FENCEPOST_TOKEN')" >>$E 2>&1 && echo written >>$E`

func TestACommandWritesByItsGuardedURLAndAStaleOneIsRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	dsn := testpg.URL(t)
	s.store = dsn
	testpg.Exec(t, dsn, "create table orders (token text)")
	args := append([]string{"fencepost", "lead", "--generation", "1", "--name", "blue", "--admin", "127.0.0.1:0"},
		s.shell("blue", insert+"; echo $FENCEPOST_GUARDED_URL >"+s.path("stale")+"; "+obeys)...)
	blue := s.beginUnder("blue", nil, args, []string{"FENCEPOST_GUARD_URL=" + dsn})
	blue.happens("up")
	require.Contains(t, s.command(0, "guard", "install", "--table", "orders"), "public.orders")
	blue.signal(syscall.SIGTERM)
	blue.ends(0)

	green := s.beginUnder("green", nil, append([]string{"fencepost", "lead", "--generation", "2", "--name", "green", "--auto-promote"}, s.shell("green", insert+"; "+obeys)...),
		[]string{"FENCEPOST_GUARD_URL_FILE=" + s.file("guard-url", keywords(t, dsn))})
	green.happens("written")
	conn := testpg.Connect(t, dsn)
	var rows int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from orders where token = 'g2.e2'").Scan(&rows))
	require.Equal(t, 1, rows)
	_, err := testpg.Connect(t, strings.TrimSpace(s.read("stale"))).Exec(t.Context(), "insert into orders values ('stale')")
	require.ErrorContains(t, err, "TKN01")
	_, err = conn.Exec(t.Context(), "insert into orders values ('none')")
	require.ErrorContains(t, err, "TKN02")
}

// A command that a guard has refused ends with an error of its own; the head says
// what that means.
func TestACommandThatAGuardHasRefusedEndsASupersededProcessWithZero(t *testing.T) {
	t.Parallel()
	s := newService(t)
	script := s.shell("blue", "echo up >>$E; until [ -e "+s.path("refused")+" ]; do sleep 0.01; done; exit 3")
	blue := s.beginUnder("blue", nil, append([]string{"blind", s.path("catalog.db")}, script[1:]...), nil)
	blue.happens("up")
	green := s.begin("green", 2, "--auto-promote", "--", "sh", "-c", "touch "+s.path("refused")+"; sleep 1000")
	green.says("the command runs")
	blue.ends(0)
	require.Contains(t, blue.log(), "superseded")
}

func TestAStoreIsRaisedBeforeTheCommandStarts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	dsn := testpg.URL(t)
	register := testpg.URL(t)
	s.store = dsn
	script := `psql -X -q -A -t "$FENCEPOST_GUARDED_URL" -c "begin" -c "select fencepost.guard('main', '$FENCEPOST_TOKEN')" -c "commit" >>$E 2>&1 && echo raised >>$E; sleep 1000`
	blue := s.begin("blue", 1, append([]string{"--register", register, "--guard-url", register}, s.shell("blue", script)...)...)
	blue.happens("raised")
	refused := s.begin("refused", 2, append([]string{"--register", "postgres://nobody@127.0.0.1:1/d", "--auto-promote"}, s.shell("refused", obeys)...)...)
	refused.says("CatchingUp")
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
	require.Empty(t, refused.events())
}

func (s *service) file(name, text string) string {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.path(name), []byte(text), 0o600))
	return s.path(name)
}

func keywords(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return fmt.Sprintf("host=%s port=%d user=%s dbname='%s' sslmode=disable options='-c work_mem=1MB'", cfg.Host, cfg.Port, cfg.User, cfg.Database)
}
