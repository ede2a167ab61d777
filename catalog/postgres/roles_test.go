package postgres_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// harsh are settings of a role that the driver's own connections must not mind,
// and, up to the first empty line, those that a pool which was handed in or a
// pooler must not mind either.
const harsh = `
	default_transaction_isolation = serializable
	default_transaction_deferrable = on
	idle_in_transaction_session_timeout = '1s'
	transaction_timeout = '1s'
	default_table_access_method = heap2
	DateStyle = 'German'
	IntervalStyle = sql_standard
	TimeZone = 'Asia/Kathmandu'
	standard_conforming_strings = off
	transform_null_equals = on
	array_nulls = off
	extra_float_digits = -15
	session_replication_role = replica
	plan_cache_mode = force_generic_plan
	enable_indexscan = off
	synchronous_commit = off
	bytea_output = escape

	search_path = evil, pg_catalog
	statement_timeout = '1s'
	lock_timeout = '1s'
	idle_session_timeout = '1s'
	exit_on_error = on
	client_encoding = LATIN1`

// evil shadows what the driver calls, in a schema that comes first.
const evil = `create access method heap2 type table handler heap_tableam_handler;
	create schema evil;
	create function evil.fail() returns boolean language plpgsql as $$ begin raise 'evil'; end $$;
	create function evil.pg_is_in_recovery() returns boolean language sql as 'select evil.fail()';
	create function evil.set_config(text, text, boolean) returns text language sql as 'select evil.fail()::text';
	create function evil.starts_with(text, text) returns boolean language sql as 'select evil.fail()';
	create function evil.never(text, text) returns boolean language sql as 'select false';
	create function evil.never(bigint, bigint) returns boolean language sql as 'select false';
	create function evil.never(uuid, uuid) returns boolean language sql as 'select false';
	create operator evil.= (function = evil.never, leftarg = text, rightarg = text);
	create operator evil.= (function = evil.never, leftarg = bigint, rightarg = bigint);
	create operator evil.= (function = evil.never, leftarg = uuid, rightarg = uuid)`

// harshRole makes a role with settings, and returns its URL.
func harshRole(t *testing.T, dsn, settings string) string {
	t.Helper()
	id := driver.NewID()
	role := "harsh_" + id.String()
	testpg.Exec(t, dsn, "create role "+role+" login superuser password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+" cascade; drop role "+role) })
	admin := testpg.Connect(t, dsn)
	for line := range strings.Lines(settings) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), " = ")
		var known bool
		require.NoError(t, admin.QueryRow(t.Context(), `select exists (select from pg_settings where lower(name) = lower($1))`, name).Scan(&known))
		if ok && known { // transaction_timeout is, from PostgreSQL 17 on
			testpg.Exec(t, dsn, "alter role "+role+" set "+strings.TrimSpace(line))
		}
	}
	return testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })
}

func TestNoSettingOfARoleForbidsAClaimOrFalsifiesOne(t *testing.T) {
	bearable, _, _ := strings.Cut(harsh, "\n\n")
	ways := map[string]struct {
		settings string
		open     func(t *testing.T, dsn string) *postgres.Store
	}{
		"own connections":           {harsh, open},
		"a pool that was handed in": {bearable, openOverPool},
		"a pooler": {bearable, func(t *testing.T, dsn string) *postgres.Store {
			u, err := url.Parse(dsn)
			require.NoError(t, err)
			return open(t, testpg.NewPooler(t, dsn, 20, testpg.PoolerUsers("scram-sha-256", u.User.Username(), "pw")).URL)
		}},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testpg.URL(t)
			testpg.Exec(t, dsn, evil)
			s, plain := way.open(t, harshRole(t, dsn, way.settings)), open(t, dsn)
			require.Zero(t, drivertest.ReadHead(t, s), "there is no schema yet")
			first := claimAs(t, s, "Zoë, 日本")
			second := claimAs(t, plain, "日本, Zoë")
			require.Equal(t, first.Claim.ID, second.Claim.PriorClaim)

			version, err := s.Post(within(t, soon), driver.Note{Key: "ключ", Value: []byte(`{}`)})
			require.NoError(t, err)
			rec := next(second)
			for b := range 256 {
				rec.Payload = append(rec.Payload, byte(b))
			}
			if way.settings == harsh { // else the server ends what waits for so long, and it is tried again
				waitsForAClaim(t, dsn, plain, func() error { return s.Append(within(t, soon), second, rec) })
			} else {
				require.NoError(t, s.Append(within(t, soon), second, rec))
			}
			c, err := s.Claim(within(t, soon))
			require.NoError(t, err)
			idles(t, dsn)
			claimed, rec := nextClaim(c.Head())
			require.NoError(t, c.Install(within(t, soon), claimed, rec, driver.Note{Key: "ключ", Version: version}))

			drivertest.SameHead(t, claimed.Head(), drivertest.ReadHead(t, plain))
			drivertest.SameHead(t, claimed.Head(), drivertest.ReadHead(t, s))
			require.Equal(t, drivertest.ReadClaims(t, plain, 0), drivertest.ReadClaims(t, s, 0))
			drivertest.SameLog(t, drivertest.ReadLog(t, plain, 0), drivertest.ReadLog(t, s, 0))
			require.Equal(t, drivertest.ReadNotes(t, plain, ""), drivertest.ReadNotes(t, s, ""))
			var methods string
			require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select string_agg(distinct a.amname, ' ') from pg_class c
				join pg_am a on a.oid = c.relam where c.relkind = 'r' and c.relnamespace = 'fencepost'::regnamespace`).Scan(&methods))
			require.Equal(t, "heap", methods)
		})
	}
}

// TestBytesAreReadAsTheyWereWrittenHoweverTheServerIsSetToShowThem is about statements
// that are not prepared, whose answers are text.
func TestBytesAreReadAsTheyWereWrittenHoweverTheServerIsSetToShowThem(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, "alter database "+database(t, dsn)+" set bytea_output = escape")
	exec := withParam(t, dsn, "default_query_exec_mode", "exec")
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	for name, s := range map[string]*postgres.Store{
		"pooler":    open(t, withParam(t, testpg.NewPooler(t, dsn, 5).URL, "catalog", "a")),
		"exec":      open(t, withParam(t, exec, "catalog", "b")),
		"simple":    open(t, withParam(t, withParam(t, dsn, "default_query_exec_mode", "simple_protocol"), "catalog", "c")),
		"handed in": openOverPool(t, exec),
	} {
		head := claim(t, s)
		rec := next(head)
		rec.Payload = every
		require.NoError(t, s.Append(within(t, soon), head, rec), name)
		head = head.After(rec)
		require.Equal(t, every, drivertest.ReadLog(t, s, 0)[1].Payload, name)
		_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: every})
		require.NoError(t, err, name)
		require.Equal(t, every, drivertest.ReadNotes(t, s, "")[0].Value, name)

		snapshot := at(head, 1)
		require.NoError(t, s.Stage(within(t, soon), head.Claim, snapshot.ID, 0, every), name)
		require.NoError(t, s.Publish(within(t, soon), head.Claim, snapshot), name)
		require.NoError(t, s.Snapshot(within(t, soon), func(_ driver.Snapshot, part []byte) error {
			require.Equal(t, every, part, name)
			return nil
		}))

		l, err := s.Losses(within(t, soon))
		require.NoError(t, err, name)
		l.Text = every
		_, err = s.PutLosses(within(t, soon), l, nil)
		require.NoError(t, err, name)
		l, err = s.Losses(within(t, soon))
		require.NoError(t, err, name)
		require.Equal(t, every, l.Text, name)
		c, err := s.Claim(within(t, soon))
		require.NoError(t, err, name)
		require.Equal(t, every, c.(interface{ Losses() driver.Losses }).Losses().Text, name)
		var seen []driver.Record
		require.NoError(t, c.Log(within(t, soon), head.Revision-1, func(r driver.Record) error {
			seen = append(seen, r)
			return nil
		}))
		require.Equal(t, every, seen[0].Payload, name)
		c.Abandon()
	}
}

// closer creates operators in schema public, where any user of an older database
// may create some, for those pairs of types that PostgreSQL casts first: an
// operator for just these types is preferred, and runs with the caller's rights.
const closer = `create function public.evil() returns void language plpgsql as $$ begin raise 'evil'; end $$;
	do $$ declare l text; r text; op text; kinds text[] := '{text,name,"char",varchar,oid,regnamespace,int4,int8,numeric,uuid,bool,timestamptz,bytea,bit,text[],name[]}';
	begin
		foreach l in array kinds loop foreach r in array kinds loop
			execute format('create function public.closer(%s, %s) returns boolean language sql as $f$ select public.evil(); select true $f$', l, r);
			foreach op in array '{=,<>,<,<=,>,>=,+,-,||,|,<<}'::text[] loop
				if not exists (select from pg_operator where oprname = op and oprleft = l::regtype and oprright = r::regtype) then
					execute format('create operator public.%s (function = public.closer, leftarg = %s, rightarg = %s)', op, l, r);
				end if;
			end loop;
		end loop; end loop;
	end $$`

func TestNoOperatorOfAnotherUserIsCalled(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, closer)
	for name, s := range map[string]*postgres.Store{
		"own": open(t, dsn), "handed in": openOverPool(t, dsn), "pooler": open(t, testpg.NewPooler(t, dsn, 20).URL),
	} {
		version, err := s.Post(within(t, soon), driver.Note{Key: name, Value: []byte("v")})
		require.NoError(t, err, name)
		_, err = s.Post(within(t, soon), driver.Note{Key: name, Value: []byte("w"), Version: version})
		require.NoError(t, err, name)
		claim(t, s)
		head := claim(t, s)
		rec := next(head)
		require.NoError(t, s.Append(within(t, soon), head, rec), name)
		for _, call := range compactions(s, head.After(rec)) {
			require.NoError(t, call(within(t, soon)), name)
		}
		drivertest.ReadClaims(t, s, 0)
		drivertest.ReadNotes(t, s, "")
		require.Equal(t, driver.Fine, probed(t, s)["rights"].Grade, name)
		_, err = s.Risks(within(t, soon))
		require.NoError(t, err, name)
	}
}

// TestNoStatementOfAHolderIsCompiled is about a role or a database in which every
// statement is compiled first, which takes up to seconds.
func TestNoStatementOfAHolderIsCompiled(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, harshRole(t, dsn, "jit = on\njit_above_cost = 0"))
	head := claim(t, s)
	testpg.Exec(t, dsn, `create table public.seen as select current_setting('jit') as jit where false;
		create function public.note() returns trigger language plpgsql as $$ begin
			insert into public.seen values (current_setting('jit')); return new; end $$;
		create trigger note after insert on fencepost.log for each row execute function public.note()`)
	require.NoError(t, s.Append(within(t, soon), head, next(head)))
	claim(t, s)
	rows, err := testpg.Connect(t, dsn).Query(t.Context(), `select jit from public.seen`)
	require.NoError(t, err)
	seen, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"off", "off"}, seen)
}

// openOverPool returns a store over a pool that is handed in.
func openOverPool(t *testing.T, dsn string) *postgres.Store {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// claimAs claims for a holder of that name.
func claimAs(t *testing.T, s *postgres.Store, name string) driver.Head {
	t.Helper()
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	claimed, rec := nextClaim(c.Head())
	claimed.Holder = fence.Holder{Name: name}
	require.NoError(t, c.Install(within(t, soon), claimed, rec))
	return claimed.Head()
}

// longer is more than each time-out of harsh.
const longer = `interval '1500ms'`

// waitsForAClaim calls fn, which must wait for a claim of s for longer than a
// role's settings would have it, and then succeed.
func waitsForAClaim(t *testing.T, dsn string, s *postgres.Store, fn func() error) {
	t.Helper()
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- fn() }()
	lasts(t, dsn, `wait_event_type = 'Lock' and now() - query_start > `+longer)
	c.Abandon()
	require.NoError(t, <-done)
}

// idles waits until a session has idled in its transaction for longer.
func idles(t *testing.T, dsn string) {
	t.Helper()
	lasts(t, dsn, `state = 'idle in transaction' and now() - state_change > `+longer)
}

func lasts(t *testing.T, dsn, condition string) {
	t.Helper()
	look := testpg.Connect(t, dsn)
	require.Eventually(t, func() bool {
		var there bool
		err := look.QueryRow(t.Context(), `select exists (select from pg_stat_activity where datname = current_database() and `+condition+`)`).Scan(&there)
		return err == nil && there
	}, soon, often)
}

// TestARowThatIsHiddenIsNeverOneThatIsMissing switches row level security on, as
// a platform's advisor or a hardening script does, without a policy.
func TestARowThatIsHiddenIsNeverOneThatIsMissing(t *testing.T) {
	t.Parallel()
	for _, tables := range []string{"%", "head", "token", "log", "claim", "board"} {
		t.Run(tables, func(t *testing.T) {
			dsn := leastPrivileged(t)
			head := claim(t, open(t, dsn))
			admin := testpg.Connect(t, adminOf(t, dsn))
			_, err := admin.Exec(t.Context(), fmt.Sprintf(`do $$ declare t text; begin
				for t in select relname from pg_class where relnamespace = 'fencepost'::regnamespace and relkind = 'r' and relname like '%s' loop
					execute format('alter table fencepost.%%I enable row level security', t);
				end loop; end $$`, tables))
			require.NoError(t, err)
			for name, s := range map[string]*postgres.Store{"own": open(t, dsn), "handed in": openOverPool(t, dsn)} {
				_, claimErr := tryClaim(within(t, soon), s)
				readErr := s.Log(within(t, soon), 0, func(driver.Record) error { return nil })
				_, headErr := s.Head(within(t, soon))
				claimsErr := s.Claims(within(t, soon), 0, func(driver.Claim) error { return nil })
				_, postErr := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
				refused := map[string]error{"claim": claimErr}
				switch tables {
				case "board":
					refused["post"] = postErr // and the claim can't see whether a loss stands
				case "%", "head":
					refused["head"], refused["log"], refused["claims"] = headErr, readErr, claimsErr
				case "log":
					refused["log"] = readErr
				case "claim":
					refused["claims"] = claimsErr
				}
				if _, err := s.Notes(within(t, soon), ""); name == "own" && (tables == "%" || tables == "board") {
					refused["notes"] = err // behind a pool of the application's, notes are hints
				}
				for call, err := range refused {
					require.Error(t, err, "%s: %s", name, call)
					e := fails(t, err, exitcodes.Halt, driver.NotApplied)
					require.Equal(t, exitcodes.Config, e.ExitCode(), err.Error())
					require.Contains(t, e.Remedy, "row level security", "%s: %s: %v", name, call, err)
				}
				found := probed(t, s)
				require.Equal(t, driver.Failure, found["rights"].Grade)
				require.Contains(t, found["rights"].Detail, "row level security")
			}
			if tables != "board" {
				drivertest.SameHead(t, head, drivertest.ReadHead(t, open(t, adminOf(t, dsn))))
			}
		})
	}
}

// TestAClaimThatAPolicyLetsReadAndNotLockIsRefused is about a policy for readers:
// a row that may be read and not updated is passed over by FOR UPDATE, without an
// error.
func TestAClaimThatAPolicyLetsReadAndNotLockIsRefused(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	head := claim(t, open(t, dsn))
	admin := adminOf(t, dsn)
	for _, table := range []string{"head", "token"} {
		testpg.Exec(t, admin, "alter table fencepost."+table+" enable row level security",
			"create policy readers on fencepost."+table+" for select using (true)")
	}
	s := openOverPool(t, dsn)
	for range 2 {
		_, err := s.Claim(within(t, soon))
		e := fails(t, err, exitcodes.Halt, driver.NotApplied)
		require.Contains(t, e.Remedy, "row level security")
	}
	drivertest.SameHead(t, head, drivertest.ReadHead(t, open(t, admin)))
}

// TestNoSettingHidesThatACommitDidNotWaitForTheStandby is about a warning, which is
// all that the server says of it.
func TestNoSettingHidesThatACommitDidNotWaitForTheStandby(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	dsn := testpg.Database(t, server.URL)
	quiet := harshRole(t, dsn, "client_min_messages = error")
	u, err := url.Parse(quiet)
	require.NoError(t, err)
	ways := map[string]*postgres.Store{
		"own":       open(t, quiet),
		"handed in": openOverPool(t, quiet),
		"pooler":    open(t, testpg.NewPooler(t, quiet, 20, testpg.PoolerUsers("scram-sha-256", u.User.Username(), "pw")).URL),
	}
	claim(t, open(t, dsn))
	look := testpg.Connect(t, withParam(t, dsn, "synchronous_commit", "local"))
	testpg.CommitsWaitFor(t, dsn, "nobody")
	t.Cleanup(func() {
		testpg.Exec(t, dsn, `alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
	})
	for name, s := range ways {
		for call, fn := range map[string]func() error{
			"claim": func() error { _, err := tryClaim(within(t, soon), s); return err },
			"append": func() error {
				head := drivertest.ReadHead(t, s)
				return s.Append(within(t, soon), head, next(head))
			},
			"post": func() error {
				_, err := s.Post(within(t, soon), driver.Note{Key: driver.NewID().String(), Value: []byte("v")})
				return err
			},
		} {
			done := make(chan error, 1)
			go func() { done <- fn() }()
			require.Eventually(t, func() bool {
				var n int
				err := look.QueryRow(t.Context(), `select count(pg_cancel_backend(pid)) from pg_stat_activity
					where datname = current_database() and wait_event = 'SyncRep'`).Scan(&n)
				return err == nil && n > 0
			}, soon, often, "%s: %s", name, call)
			err := <-done
			require.Error(t, err, "%s: %s", name, call)
			fails(t, err, exitcodes.Retry, driver.Unknown)
		}
	}
}
