package errormatrix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A mistake is what an operator does to the tables, and how it is undone.
type mistake struct {
	code, do, undo string
	call           func(p *pg, s *postgres.Store, head driver.Head) error // a commit where it is nil
	read           bool                                                   // nothing was sent that could land
}

func post(key string) func(*pg, *postgres.Store, driver.Head) error {
	return func(p *pg, s *postgres.Store, _ driver.Head) error {
		_, err := s.Post(drivertest.Context(p.t), driver.Note{Key: key, Value: []byte("v")})
		return err
	}
}

func notes(p *pg, s *postgres.Store, _ driver.Head) error {
	_, err := s.Notes(drivertest.Context(p.t), "")
	return err
}

const (
	keep    = `alter table fencepost.log rename to kept; `
	restore = `alter table fencepost.kept rename to log`
)

func mistakes() []mistake {
	return []mistake{
		{code: "42703", do: `alter table fencepost.log rename payload to gone`, undo: `alter table fencepost.log rename gone to payload`},
		{code: "42P01", do: `alter table fencepost.board rename to gone`, undo: `alter table fencepost.gone rename to board`, call: notes, read: true},
		{code: "55000", do: keep + `create view fencepost.log as select distinct * from fencepost.kept`, undo: `drop view fencepost.log; ` + restore},
		{code: "44000", do: keep + `create view fencepost.log as select * from fencepost.kept where epoch < 0 with check option`,
			undo: `drop view fencepost.log; ` + restore},
		{code: "42809", do: keep + `create materialized view fencepost.log as select * from fencepost.kept`,
			undo: `drop materialized view fencepost.log; ` + restore},
		{code: "428C9", do: `alter table fencepost.log alter epoch add generated always as identity`, undo: `alter table fencepost.log alter epoch drop identity`},
		{code: "2200H", do: `create sequence public.few maxvalue 2; select nextval('public.few'), nextval('public.few'); alter table fencepost.log add extra bigint;
			alter table fencepost.log alter extra set default nextval('public.few')`, undo: `alter table fencepost.log drop extra; drop sequence public.few`},
		{code: "22001", do: `alter table fencepost.board alter key type varchar(3)`, undo: `alter table fencepost.board alter key type text`, call: post("long")},
		{code: "42804", do: `alter table fencepost.log alter commit_id type bytea using uuid_send(commit_id)`,
			undo: `alter table fencepost.log alter commit_id type uuid using encode(commit_id, 'hex')::uuid`},
		{code: "pgx.ScanArgError", do: `alter table fencepost.head alter commit_id type text`,
			undo: `alter table fencepost.head alter commit_id type uuid using commit_id::uuid`, read: true},
		{code: "54000", do: `create index fat on fencepost.log (payload)`, undo: `drop index fencepost.fat`},
		{code: "23xxx in schema fencepost", do: `alter table fencepost.log add constraint small check (octet_length(payload) < 100)`,
			undo: `alter table fencepost.log drop constraint small`},
		{code: "XX000", do: `update pg_attribute set attnum = 99 where attrelid = 'fencepost.log'::regclass and attname = 'payload'`,
			undo: `update pg_attribute set attnum = 6 where attrelid = 'fencepost.log'::regclass and attname = 'payload'`},
	}
}

func (s *pgServer) provokeSchema(t *testing.T, shared string) {
	s.in(t, "tables changed by hand", shared, func(p *pg) {
		for _, m := range mistakes() {
			p.t.Run(m.code, func(t *testing.T) {
				head := drivertest.ReadHead(t, p.well)
				victim := openPostgres(t, p.dsn)
				p.exec(m.do)
				if m.call == nil {
					m.call = func(p *pg, s *postgres.Store, head driver.Head) error { return p.after(s, head, 50_000) }
				}
				err := m.call(p, victim, head)
				p.exec(m.undo)
				s.x.expect(t, met, m.code, !m.read, err)
			})
		}
	})
	s.in(t, "a plan that an altered table made useless", shared, func(p *pg) {
		_, err := p.well.Notes(drivertest.Context(p.t), "")
		require.NoError(p.t, err)
		p.exec(`alter table fencepost.board alter key type varchar(100)`)
		s.x.expect(p.t, met, "0A000 of RevalidateCachedQuery", false, notes(p, p.well, driver.Head{}))
		p.exec(`alter table fencepost.board alter key type text`)
	})
	s.in(t, "a pooler between", shared, s.provokePooler)
	s.in(t, "a small disk", "", s.provokeDisk)
}

// provokePooler plays a pooler in transaction mode by sessions that forget what
// was prepared in them, or have other statements by the same names.
func (s *pgServer) provokePooler(p *pg) {
	config, err := pgxpool.ParseConfig(p.server)
	require.NoError(p.t, err)
	postgres.Prepare(config)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(p.t.Context(), config)
	require.NoError(p.t, err)
	defer pool.Close()
	forget := func() {
		_, err := pool.Exec(p.t.Context(), `deallocate all`)
		require.NoError(p.t, err)
	}
	victim := func() *postgres.Store {
		s, err := postgres.Open(p.t.Context(), p.dsn, postgres.Config{Pool: pool})
		require.NoError(p.t, err)
		p.t.Cleanup(func() { require.NoError(p.t, s.Close()) })
		require.NoError(p.t, p.commit(s, 1))
		return s
	}
	one := victim()
	forget()
	s.x.expect(p.t, met, "26000", true, p.commit(one, 1))
	pool.Reset()

	// Another client's session, in which the names are taken.
	var names []string
	two := victim()
	rows, err := pool.Query(p.t.Context(), `select name from pg_prepared_statements where name like 'stmtcache%'`)
	require.NoError(p.t, err)
	for rows.Next() {
		var name string
		require.NoError(p.t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(p.t, rows.Err())
	require.NotEmpty(p.t, names)
	pool.Reset()
	for _, name := range names {
		_, err := pool.Exec(p.t.Context(), `prepare `+name+` as select 1`)
		require.NoError(p.t, err)
	}
	s.x.expect(p.t, met, "42P05", true, p.commit(two, 1))
}

// mount mounts a tmpfs of a size for the test. It needs root, as CI has.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "errormatrix-") // a test's own name can be too long for a server
	require.NoError(t, err)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size), "this test mounts a small file system: run it as root")
	t.Cleanup(func() {
		require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH))
		require.NoError(t, os.Remove(dir))
	})
	return dir
}

// provokeDisk has the log on a disk of its own, of a few mebibytes.
func (s *pgServer) provokeDisk(p *pg) {
	disk := mount(p.t, "6m")
	space := filepath.Join(disk, "space")
	require.NoError(p.t, os.Mkdir(space, 0o700))
	owner, err := os.Stat(p.value(`select current_setting('data_directory')`))
	require.NoError(p.t, err)
	id := owner.Sys().(*syscall.Stat_t)
	require.NoError(p.t, os.Chown(space, int(id.Uid), int(id.Gid)))
	require.NoError(p.t, os.Chmod(disk, 0o755))
	p.exec(`create tablespace small location '`+space+`'`, `alter table fencepost.log set tablespace small`, `alter index fencepost.log_pkey set tablespace small`)
	defer p.exec(`alter table fencepost.log set tablespace pg_default`, `drop tablespace small`)

	// These come first, as long as the server has none of it in its memory.
	heap, index := p.file(`fencepost.log`), p.file(`fencepost.log_pkey`)
	spoil := func(code, file string, at int64, bytes []byte) {
		head := drivertest.ReadHead(p.t, p.well)
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		require.NoError(p.t, err)
		defer func() { require.NoError(p.t, f.Close()) }()
		kept := make([]byte, len(bytes))
		_, err = f.ReadAt(kept, at)
		require.NoError(p.t, err)
		_, err = f.WriteAt(bytes, at)
		require.NoError(p.t, err)
		err = p.after(p.open(), head, 1)
		_, restored := f.WriteAt(kept, at)
		require.NoError(p.t, restored)
		s.x.expect(p.t, met, code, true, err)
	}
	const page = 8192
	spoil("XX001", heap, 0, []byte(strings.Repeat("garbage!", 8)))
	spoil("XX002", index, page, make([]byte, page))
	p.exec(`alter index fencepost.log_pkey set tablespace pg_default`) // the server forgets what it read of it

	require.NoError(p.t, os.Rename(heap, heap+".gone"))
	err = p.commit(p.open(), 1)
	require.NoError(p.t, os.Rename(heap+".gone", heap))
	s.x.expect(p.t, met, "58P01", true, err)

	traced := p.open("application_name=traced")
	require.NoError(p.t, p.commit(traced, 1))
	backends := testpg.Backends(p.t, p.server, "traced")
	require.Len(p.t, backends, 1)
	toast := p.file(p.value(`select reltoastrelid::regclass::text from pg_class where oid = 'fencepost.log'::regclass`))
	for number, code := range map[string]string{"EIO": "58030", "ENFILE": "53000"} {
		stop := inject(p.t, backends[0], toast, "pwrite64,pwritev,pwritev2,fallocate", number)
		err = p.commit(traced, 500_000)
		stop()
		s.x.expect(p.t, met, code, true, err)
	}

	for err = nil; err == nil; {
		err = p.commit(p.well, 500_000)
	}
	s.x.expect(p.t, met, "53100", true, err)
	require.NoError(p.t, unix.Mount("", disk, "", unix.MS_REMOUNT, "size=32m"))
	require.NoError(p.t, p.commit(p.well, 500_000), "once there is room it lands")
}

// value returns the one value that a query gives.
func (p *pg) value(sql string) (v string) {
	p.t.Helper()
	require.NoError(p.t, testpg.Connect(p.t, p.server).QueryRow(p.t.Context(), sql).Scan(&v))
	return v
}

// file returns the file of a table or index.
func (p *pg) file(of string) string {
	p.t.Helper()
	return filepath.Join(p.value(`select current_setting('data_directory')`), p.value(fmt.Sprintf(`select pg_relation_filepath('%s')`, of)))
}

// inject makes system calls of a process fail where they are about a file, until
// stop is called.
func inject(t *testing.T, pid int, file, calls, number string) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-p", fmt.Sprint(pid), "-P", file,
		"-e", "trace="+calls, "-e", "inject="+calls+":error="+number) //nolint:gosec // a test's own process
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	attached, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		var text string
		told := false
		for {
			n, err := log.Read(buf)
			if err != nil {
				return
			}
			if text += string(buf[:n]); !told && strings.Contains(text, "attached") {
				close(attached)
				told = true
			}
		}
	}()
	select {
	case <-attached:
	case <-ended:
		t.Fatal("strace did not attach: scripts/test.sh installs it, and it needs root")
	}
	return func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT)) // it lets the process go
		<-ended
		_ = cmd.Wait() // its status is the signal's
	}
}
