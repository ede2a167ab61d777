package pgwork

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/work"
)

// version is what is said of the installed functions. Another text has Install
// install them anew.
const version = "Enqueue of github.com/fencepost/fencepost, version 1"

// maxKeys is how many jobs with a key one transaction enqueues in order. Each takes
// a lock, and PostgreSQL has room for some thousands, for all of its sessions.
const maxKeys = 256

// functionsSQL creates the functions in schema fencepost. It may run again. They run
// with their owner's rights, so that a role which may call them can put requests
// into the inbox and do nothing else to the board.
//
// The sequence orders the requests. The lock of a key is taken before the number and
// held until the transaction ends, so that the requests of one key are numbered in
// the order in which they are committed.
const functionsSQL = `
set local search_path = pg_catalog, pg_temp;

create sequence if not exists fencepost.enqueued;
comment on sequence fencepost.enqueued is 'Orders the requests that fencepost.enqueue puts into inboxes';

create or replace function fencepost.enqueue(catalog text, kind text, key text default '', payload bytea default null,
	run_at timestamptz default null, priority integer default 0, generation bigint default null, member text default null,
	ordered boolean default true) returns text
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
declare
	of_key text := coalesce($3, '');
	me text;
	seen text[];
	held integer := 1;
	ref text;
begin
	if coalesce(octet_length(convert_to($2, 'UTF8')), 0) not between 1 and {MaxName} or $2 collate "C" ~ '[[:cntrl:]]' then
		raise exception using errcode = '{invalid}', message = 'fencepost: the kind is ' || coalesce(quote_literal(left($2, 64)), 'null'),
			hint = 'a kind has 1 to {MaxName} bytes of printable text';
	elsif $8 <> '' and (octet_length(convert_to($8, 'UTF8')) > {MaxName} or $8 collate "C" ~ '[[:cntrl:]]') then
		raise exception using errcode = '{invalid}', message = 'fencepost: the member is ' || quote_literal(left($8, 64)),
			hint = 'a member has at most {MaxName} bytes of printable text';
	elsif octet_length(convert_to(of_key, 'UTF8')) > {MaxKey} then
		raise exception using errcode = '{large}', message = 'fencepost: the key has ' || octet_length(convert_to(of_key, 'UTF8')) || ' bytes',
			hint = 'a key has at most {MaxKey} bytes';
	elsif octet_length($4) > {MaxPayload} then
		raise exception using errcode = '{large}', message = 'fencepost: the payload has ' || octet_length($4) || ' bytes',
			hint = 'a payload has at most {MaxPayload} bytes: keep it elsewhere, and enqueue where it is';
	elsif abs(coalesce($6, 0)::bigint) > {MaxPriority} then
		raise exception using errcode = '{invalid}', message = 'fencepost: the priority is ' || $6, hint = 'a priority is from -{MaxPriority} to {MaxPriority}';
	elsif $5 < timestamptz '1970-01-01 00:00:00+00' or $5 >= timestamptz '10000-01-01 00:00:00+00' then
		raise exception using errcode = '{invalid}', message = 'fencepost: the time to run at is ' || $5, hint = 'it is from 1970 to 9999; null stands for at once';
	elsif $7 < 1 then
		raise exception using errcode = '{invalid}', message = 'fencepost: the generation is ' || $7, hint = 'a generation is 1 or more; null stands for every one';
	elsif $1 is null or not $1 collate "C" ~ '^[a-z0-9_-]{1,63}$' then
		raise exception using errcode = '{invalid}', message = 'fencepost: the catalog is ' || coalesce(quote_literal(left($1, 64)), 'null'),
			hint = 'the name of a catalog has 1 to 63 of a-z, 0-9, _ and -';
	elsif not exists (select from fencepost.token t where t.catalog = $1) then
		raise exception using errcode = '{unclaimed}', message = 'fencepost: no process has ever claimed catalog ' || $1,
			hint = 'check the name of the catalog, or let a process claim it first';
	end if;
	if of_key <> '' and coalesce($9, true) then
		me := pg_current_xact_id()::text;
		seen := string_to_array(current_setting('fencepost.enqueued', true), ' ');
		if seen[1] = me then
			held := seen[2]::integer + 1;
		end if;
		if held > {maxKeys} then
			raise exception using errcode = '{keys}', message = 'fencepost: this transaction has enqueued {maxKeys} jobs with a key',
				hint = 'enqueue further ones with ordered => false, or one job that enqueues them';
		end if;
		perform set_config('fencepost.enqueued', me || ' ' || held, true);
		perform pg_advisory_xact_lock(hashtextextended(concat('fencepost.enqueue ', $1, ' ', quote_literal($2), ' ', of_key), 0));
	end if;
	ref := concat('s', lpad(nextval('fencepost.enqueued')::text, 19, '0'), '-', replace(gen_random_uuid()::text, '-', ''));
	insert into fencepost.board (catalog, key, value, version) values ($1, '{InboxPrefix}' || ref,
		convert_to(json_strip_nulls(json_build_object('op', '{OpEnqueue}', 'by', session_user,
			'at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
			'kind', $2, 'key', nullif(of_key, ''), 'payload', encode(nullif($4, ''), 'base64'),
			'run_at', to_char($5 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'priority', nullif($6, 0),
			'generation', $7, 'member', nullif($8, '')))::text, 'UTF8'),
		greatest(1, ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint & 9223372036854775807));
	return ref;
end
$fn$;

-- wake has the holder read its inbox at once. PostgreSQL makes each NOTIFY wait for every other one, and fails the
-- commit while its queue of notifications is full: so it is sent on its own, and gives up soon.
create or replace function fencepost.wake(catalog text) returns void
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
begin
	if pg_current_xact_id_if_assigned() is not null then
		raise exception using errcode = '{inside}', message = 'fencepost: wake was called inside a transaction that has written',
			hint = 'call it behind the commit';
	end if;
	perform set_config('lock_timeout', '500ms', true);
	perform pg_notify('fencepost:' || case when octet_length($1) <= 53 then $1
		else left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 32) end, '');
end
$fn$;

revoke execute on function {enqueue}, {wake} from public;
comment on function {enqueue} is '{version}';
`

// The functions by their arguments.
const (
	enqueueName = "fencepost.enqueue(text, text, text, bytea, timestamptz, integer, bigint, text, boolean)"
	wakeName    = "fencepost.wake(text)"
)

// Schema returns the statements that install the functions and let roles call them,
// for an operator to run, as the owner of schema fencepost, in one transaction. They
// may run again.
func Schema(roles ...string) string {
	var b strings.Builder
	b.WriteString("begin;\n")
	b.WriteString(statements(roles))
	b.WriteString("commit;\n")
	return b.String()
}

func statements(roles []string) string {
	all := strings.NewReplacer(
		"{MaxName}", fmt.Sprint(work.MaxName), "{MaxKey}", fmt.Sprint(work.MaxKey), "{MaxPayload}", fmt.Sprint(work.MaxPayload),
		"{MaxPriority}", fmt.Sprint(work.MaxPriority), "{maxKeys}", fmt.Sprint(maxKeys),
		"{InboxPrefix}", work.InboxPrefix, "{OpEnqueue}", work.OpEnqueue,
		"{invalid}", stateInvalid, "{large}", stateTooLarge, "{unclaimed}", stateUnclaimed, "{keys}", stateManyKeys, "{inside}", stateInside,
		"{enqueue}", enqueueName, "{wake}", wakeName, "{version}", version,
	).Replace(functionsSQL)
	return all + Grants(roles...)
}

// Grants returns the statements that let roles call the functions: each needs usage on
// schema fencepost and execute on the two, and no other right.
func Grants(roles ...string) (all string) {
	for _, role := range roles {
		quoted := pgx.Identifier{role}.Sanitize()
		all += "grant usage on schema fencepost to " + quoted + ";\ngrant execute on function " + enqueueName + ", " + wakeName + " to " + quoted + ";\n"
	}
	return all
}

// installedSQL returns whether both functions are there, of this version, and whether
// the roles $2 have every right.
const installedSQL = `select pg_catalog.count(*) = 2 and pg_catalog.count(*) filter (where pg_catalog.obj_description(p.oid, 'pg_proc') = $1) = 1,
	coalesce(pg_catalog.bool_and((select coalesce(pg_catalog.bool_and(
		pg_catalog.has_schema_privilege(role, n.oid, 'usage') and pg_catalog.has_function_privilege(role, p.oid, 'execute')), true)
		from pg_catalog.unnest($2::text[]) as role)), false)
	from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
	where n.nspname = 'fencepost' and p.proname in ('enqueue', 'wake')`

// ErrElsewhere means that a catalog is not in PostgreSQL, so that there is nothing to
// install.
var ErrElsewhere = errors.New("only a catalog in PostgreSQL has functions that enqueue: elsewhere use work.Post or fencepost work enqueue, which need the right to write to the store")

// InstallOn does what [Install] does in the database of a catalog.
func InstallOn(ctx context.Context, store driver.Store, roles ...string) error {
	lender, ok := driver.As[interface {
		Lend(ctx context.Context, op string, fn func(*pgx.Conn) error) error
	}](store)
	if !ok {
		return fmt.Errorf("pgwork: install: %w, not in %s", ErrElsewhere, store)
	}
	return lender.Lend(ctx, "install", func(conn *pgx.Conn) error { return Install(ctx, conn, roles...) })
}

// A Beginner begins transactions, as *pgxpool.Pool and *pgx.Conn do.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Install installs the functions in the database of conn, and lets roles call them,
// unless that was done. It needs the rights of the owner of schema fencepost only if
// there is something to do, so that a holder may call it whenever its work begins.
// The schema must be there: the first claim makes it.
func Install(ctx context.Context, conn Beginner, roles ...string) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		var there, granted bool
		if err := tx.QueryRow(ctx, installedSQL, version, append([]string{}, roles...)).Scan(&there, &granted); err != nil || there && granted {
			return err
		}
		// One at a time: PostgreSQL fails a function that two transactions replace.
		if _, err := tx.Exec(ctx, `select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('fencepost.enqueue install', 0))`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, statements(roles), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	switch {
	case err == nil:
		return nil
	case sqlState(err) == noSchema:
		return fmt.Errorf("pgwork: install: %w: let a process claim the catalog first, or run the statements of fencepost schema --store postgres --enqueuer ROLE: %w", ErrNotInstalled, err)
	case sqlState(err) == noRight:
		return fmt.Errorf("pgwork: install: %w: run it as the owner of schema fencepost, such as by fencepost work install: %w", ErrNoRight, err)
	}
	return fmt.Errorf("pgwork: install: %w", err)
}
