package testpg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// A Pooler is a PgBouncer in transaction mode before a server.
type Pooler struct {
	URL string // of the database that it was made for, through the pooler

	t       testing.TB
	process *exec.Cmd
	ended   chan struct{}
	log     string
}

const poolerConfig = `[databases]
%s = host=%s port=%s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
auth_file = %s
pool_mode = transaction
default_pool_size = %d
logfile = %s
max_client_conn = 500
%s
`

// A PoolerOption changes a pooler before its start.
type PoolerOption func(*poolerOptions)

type poolerOptions struct{ database, users, settings string }

// PoolerDatabase has a pooler know one database, where it else knows them all.
func PoolerDatabase(name string) PoolerOption {
	return func(o *poolerOptions) { o.database = name }
}

// PoolerUsers has a pooler ask for a password, by a method of PgBouncer's such
// as "scram-sha-256", and lets one user in.
func PoolerUsers(method, name, password string) PoolerOption {
	return func(o *poolerOptions) {
		o.settings += "auth_type = " + method + "\n"
		o.users = fmt.Sprintf("%q %q\n", name, password)
	}
}

// PoolerSetting adds a line to a pooler's configuration.
func PoolerSetting(line string) PoolerOption {
	return func(o *poolerOptions) { o.settings += line + "\n" }
}

// NewPooler starts a pooler before the server of a URL, with as many
// connections to it as said, to be stopped at the end of the test.
func NewPooler(t testing.TB, server string, conns int, opts ...PoolerOption) *Pooler {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	o := poolerOptions{database: "*"}
	for _, opt := range opts {
		opt(&o)
	}
	for range 5 { // another process may take the port first
		port := freePort(t)
		dir := folder(t)
		chown(t, dir)
		path, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users")
		text := fmt.Sprintf(poolerConfig, o.database, u.Hostname(), u.Port(), u.User.Username(), port, users, conns, filepath.Join(dir, "log"), o.settings)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))     //nolint:gosec // it runs as another user
		require.NoError(t, os.WriteFile(users, []byte(o.users), 0o644)) //nolint:gosec // as above
		p := &Pooler{t: t, ended: make(chan struct{}), log: filepath.Join(dir, "log")}
		p.URL = With(t, server, func(u *url.URL) { u.Host = fmt.Sprintf("127.0.0.1:%d", port) })
		if p.start(path) {
			t.Cleanup(p.Kill)
			p.URL = shield(t, p.URL)
			return p
		}
	}
	t.Fatal("no pooler starts")
	return nil
}

// start runs PgBouncer and reports whether it answers.
func (p *Pooler) start(path string) bool {
	p.process = exec.Command(poolerBinary(p.t), path) //nolint:gosec // a test's own file
	p.process.Dir = "/"
	p.process.SysProcAttr = unprivileged(p.t)
	require.NoError(p.t, p.process.Start())
	go func() { defer close(p.ended); _ = p.process.Wait() }()
	ready := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		conn, err := pgx.Connect(ctx, p.URL)
		if err == nil {
			_ = conn.Close(ctx)
		}
		var refused *pgconn.PgError // it wants a password, and so it is there
		return err == nil || errors.As(err, &refused)
	}
	tick, giveUp := time.NewTicker(5*time.Millisecond), time.NewTimer(timeout)
	defer tick.Stop()
	defer giveUp.Stop()
	for !ready() {
		select {
		case <-p.ended:
			return false
		case <-giveUp.C:
			p.Kill()
			require.Fail(p.t, "the pooler does not answer", readable(p.log))
		case <-tick.C:
		}
	}
	return true
}

// shield returns the URL of a way to the pooler on which cancel requests are lost:
// PgBouncer before 1.21 may end at one (its issue 822).
func shield(t testing.TB, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { forward(client, u.Host) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); tasks.Wait() })
	return With(t, dsn, func(u *url.URL) { u.Host = l.Addr().String() })
}

// forward passes a connection on, unless it is a cancel request.
func forward(client net.Conn, to string) {
	const header, longest, cancelRequest = 8, 1 << 14, 80877102
	defer func() { _ = client.Close() }()
	first := make([]byte, header, longest)
	if _, err := io.ReadFull(client, first); err != nil || binary.BigEndian.Uint32(first[4:]) == cancelRequest {
		return
	}
	first = first[:min(max(binary.BigEndian.Uint32(first), header), longest)]
	if _, err := io.ReadFull(client, first[header:]); err != nil { // PgBouncer wants it in one piece
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	if _, err := server.Write(first); err == nil {
		_, _ = io.Copy(server, client)
	}
	_ = server.Close()
	back.Wait()
}

// Kill ends the pooler at once, as a crash does.
func (p *Pooler) Kill() {
	_ = p.process.Process.Kill()
	<-p.ended
}

func readable(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// chown gives a folder to the user whom the pooler runs as.
func chown(t testing.TB, dir string) {
	t.Helper()
	if as := unprivileged(t); as != nil {
		require.NoError(t, os.Chown(dir, int(as.Credential.Uid), int(as.Credential.Gid)))
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func poolerBinary(t testing.TB) string {
	t.Helper()
	const debian = "/usr/sbin/pgbouncer"
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	path, err := exec.LookPath("pgbouncer")
	require.NoError(t, err, "no pgbouncer: run make test, which installs it")
	return path
}

// unprivileged says that a process runs as user postgres where we are root,
// since servers refuse root.
func unprivileged(t testing.TB) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	require.NoError(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(t, err)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
