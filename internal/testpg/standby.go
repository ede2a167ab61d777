package testpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Standby returns a streaming, asynchronous standby of s that takes reads. It
// is made by the server's own functions for a backup, which every version has,
// and not by pg_basebackup, which refuses servers newer than itself.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	standby := &Server{t: t, dir: folder(t)}
	conn := Connect(t, s.URL)
	label := s.backUp(t, conn, filepath.Join(standby.dir, "data"))
	host, port := conn.Config().Host, conn.Config().Port
	require.NoError(t, conn.Close(t.Context()))
	put := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(standby.dir, "data", name), []byte(text), 0o600))
	}
	put("backup_label", label)
	put("standby.signal", "")
	put("postgresql.auto.conf", fmt.Sprintf("primary_conninfo = 'host=%s port=%d user=postgres'\n", host, port))
	standby.configure([]string{"hot_standby = on", "synchronous_standby_names = ''"})
	standby.Start()
	return standby
}

// backUp copies the data of a server that goes on running, without its log of
// writes, and returns what belongs in the file backup_label.
func (s *Server) backUp(t testing.TB, conn *pgx.Conn, data string) (label string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	begin, end := `select pg_backup_start('standby', true)::text`, `select labelfile from pg_backup_stop(false)`
	var version int
	require.NoError(t, conn.QueryRow(ctx, `select current_setting('server_version_num')::int`).Scan(&version))
	if version < 150000 {
		begin, end = `select pg_start_backup('standby', true, false)::text`, `select labelfile from pg_stop_backup(false, false)`
	}
	var at string
	require.NoError(t, conn.QueryRow(ctx, begin).Scan(&at))
	copyTree(ctx, t, filepath.Join(s.dir, "data"), data)
	require.NoError(t, conn.QueryRow(ctx, end).Scan(&label))
	return label
}

// copyTree copies with rights and owner. A file may vanish meanwhile, and what
// changes meanwhile is mended by the replay of the log.
func copyTree(ctx context.Context, t testing.TB, from, to string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, "bash", "-c", `set -eu
		mkdir -m 700 "$2"
		tar -C "$1" --exclude ./postmaster.pid --exclude ./postmaster.opts --exclude './pg_wal/*' \
			--ignore-failed-read --warning=no-file-changed --warning=no-file-removed -cf - . | tar -C "$2" -xpf - || [ "${PIPESTATUS[1]}" -eq 0 ]
		chown --reference="$1" "$2"`, "copy", from, to).CombinedOutput() //nolint:gosec // a test's own folders
	require.NoError(t, err, string(out))
}

// Detach makes a standby receive nothing more, as if the way to its primary
// were cut, and returns once that is so.
func (s *Server) Detach() {
	s.t.Helper()
	conn := Connect(s.t, s.URL)
	Exec(s.t, s.URL, `alter system set primary_conninfo = ''`, `select pg_reload_conf()`)
	require.Eventually(s.t, func() bool {
		var receivers int
		err := conn.QueryRow(s.t.Context(), `select count(*) from pg_stat_wal_receiver where pid is not null`).Scan(&receivers)
		return err == nil && receivers == 0
	}, timeout, 5*time.Millisecond, "the standby still receives")
}

// Split makes a standby a primary of the same timeline, as a copy of a server is
// that somebody starts beside it.
func (s *Server) Split() {
	s.t.Helper()
	s.Stop()
	require.NoError(s.t, os.Remove(filepath.Join(s.dir, "data", "standby.signal")))
	s.Start()
}

// CaughtUp returns once a standby has replayed all that s has written by now.
func (s *Server) CaughtUp(standby *Server) {
	s.t.Helper()
	var written string // to disk: the position of the next write can lie behind a header that is not there yet
	require.NoError(s.t, Connect(s.t, s.URL).QueryRow(s.t.Context(), `select pg_current_wal_flush_lsn()::text`).Scan(&written))
	conn := Connect(s.t, standby.URL)
	require.Eventually(s.t, func() bool {
		var replayed bool
		err := conn.QueryRow(s.t.Context(), `select pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, written).Scan(&replayed)
		return err == nil && replayed
	}, timeout, 5*time.Millisecond, "the standby lags")
}

// Promote makes a standby the primary of a new timeline, and returns once it
// takes writes.
func (s *Server) Promote() {
	s.t.Helper()
	conn := Connect(s.t, s.URL)
	var done bool
	require.NoError(s.t, conn.QueryRow(s.t.Context(), `select pg_promote(true, 60)`).Scan(&done))
	require.True(s.t, done, "the standby was not promoted within 60 s")
}

// CommitsWaitFor has commits on the URL's server wait for standbys of a name, and
// returns once they do: the server's processes hear of it one by one, and the last
// one makes commits wait.
func CommitsWaitFor(t testing.TB, server, name string) {
	t.Helper()
	Exec(t, server, "alter system set synchronous_standby_names = '"+name+"'", "select pg_reload_conf()")
	look := Connect(t, server)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for !commitWaits(ctx, t, server, look) {
	}
}

// commitWaits makes a commit, and reports whether that had to wait. The wait is
// then cut.
func commitWaits(ctx context.Context, t testing.TB, server string, look *pgx.Conn) bool {
	t.Helper()
	probe, err := pgx.Connect(ctx, server)
	require.NoError(t, err)
	defer func() { _ = probe.Close(ctx) }()
	done := make(chan error, 1)
	go func() {
		_, err := probe.Exec(ctx, "select pg_logical_emit_message(true, 'probe', '')")
		done <- err
	}()
	waited := false
	for {
		select {
		case err := <-done:
			require.NoError(t, err)
			return waited
		default:
		}
		var cut int
		err := look.QueryRow(ctx, `select count(pg_cancel_backend(pid)) from pg_stat_activity
			where pid = $1 and wait_event = 'SyncRep'`, probe.PgConn().PID()).Scan(&cut)
		require.NoError(t, err)
		waited = waited || cut > 0
	}
}
