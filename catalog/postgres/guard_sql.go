package postgres

// guardVersion is what is said of the installed functions. Another text has
// InstallGuards install them anew.
const guardVersion = "Guards of github.com/fencepost/fencepost, version 2"

// guardSQL creates what guards need. It may run again. The functions run with
// their owner's rights, so that whoever writes to a guarded table needs none on this
// schema.
//
// Each catalog has a view whose name says which token is the newest, such as
// fencepost."main@g7.e41". A guarded transaction locks it by that name in ROW EXCLUSIVE
// mode; a claim locks it in ACCESS EXCLUSIVE mode from before it locks the head, and
// renames it. PostgreSQL looks a name up again once it has got the lock: a transaction
// that had to wait for a claim finds no such view, whatever its isolation level and
// however old its snapshot. Unlike an advisory lock it can't be held by everybody; unlike
// a row lock it makes no multixact; PostgreSQL grants it without a look at shared
// memory while no claim is under way; and unlike a table it is not locked by pg_dump.
const guardSQL = `
set local search_path = pg_catalog, pg_temp;

-- The stamp tells a row that a claim wrote here from one that a dump has brought. It names the transaction and
-- the table, which the row's own xmin and tableoid must repeat, and the database, at which claims look.
alter table fencepost.token add column if not exists stamp text;

-- guard_name returns a name for a catalog that leaves room for a token of 41 bytes: PostgreSQL takes 63.
create or replace function fencepost.guard_name(catalog text) returns text
	language sql stable parallel safe as $fn$
	select case when pg_catalog.octet_length($1) operator(pg_catalog.<=) 21 then $1
		else pg_catalog.concat(pg_catalog.left($1, 8), '~', pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex'), 12)) end
$fn$;

-- guard_view returns the name of the view that is there while a token is the newest.
create or replace function fencepost.guard_view(catalog text, token text) returns text
	language sql stable parallel safe as $fn$
	select pg_catalog.concat(fencepost.guard_name($1), '@', $2)
$fn$;

-- guard_views returns the views of a catalog: one at most, unless somebody has emptied the tables.
create or replace function fencepost.guard_views(catalog text) returns setof name
	language sql volatile set search_path = pg_catalog, pg_temp as $fn$
	select c.relname from pg_class c where c.relnamespace = 'fencepost'::regnamespace and c.relkind = 'v'
		and c.relname >= fencepost.guard_view($1, '')::name and c.relname < concat(fencepost.guard_name($1), 'A')::name order by c.oid -- A comes behind @
$fn$;

-- await_guards waits until no guarded transaction of a catalog is in flight, and keeps new ones out until the end
-- of the transaction. Claims call it once they have locked the token's row, which all of them lock first, and before they
-- lock the head.
create or replace function fencepost.await_guards(catalog text) returns void
	language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
	live name;
	gone name;
begin
	loop
		select v into live from fencepost.guard_views($1) v limit 1;
		if live is null then
			return;
		elsif live = gone then
			raise serialization_failure using message = format('fencepost: view %I was renamed since the snapshot of this claim', live);
		end if;
		begin
			execute format('lock table fencepost.%I in access exclusive mode', live);
			return;
		exception when undefined_table then
			gone := live; -- by another claim
		end;
	end loop;
end
$fn$;

-- guard_claim is called for every row that a claim writes, of any build: it waits for guarded transactions, and
-- names the newest token by the view. Nobody sees that before the claim has landed.
create or replace function fencepost.guard_claim() returns trigger
	language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
	next text := fencepost.guard_view(new.catalog, concat('g', new.generation, '.e', new.epoch));
	there bool;
	old_view name;
begin
	if new.catalog ~ '^(register:)?[a-z0-9_-]{1,63}$'
		and (tg_op = 'UPDATE' or not exists (select from fencepost.token t where t.catalog = new.catalog)) then -- else it becomes an UPDATE
		perform fencepost.await_guards(new.catalog);
		loop
			there := to_regclass(format('fencepost.%I', next)) is not null;
			begin
				for old_view in select v from fencepost.guard_views(new.catalog) v where v <> next loop
					if there then
						execute format('drop view fencepost.%I', old_view);
					else
						execute format('alter view fencepost.%I rename to %I', old_view, next);
						there := true;
					end if;
				end loop;
				exit;
			exception when internal_error then
				if sqlerrm not like 'tuple concurrently %' then -- a GRANT on the view, which heeds no lock on it, has landed
					raise;
				end if;
			end;
		end loop;
		if not there then
			execute format('create view fencepost.%I as select true as live', next);
			execute format('grant insert on fencepost.%I to public', next); -- the right to lock it: nobody can insert into it
			execute format('comment on view fencepost.%I is ''Its name says which token is the newest: guarded transactions lock it, claims rename it''', next);
			execute format('create sequence if not exists fencepost.%I', 'refused:' || fencepost.guard_name(new.catalog));
			execute format('grant select on sequence fencepost.%I to public', 'refused:' || fencepost.guard_name(new.catalog));
		end if;
	end if;
	if tg_op = 'INSERT' and new.stamp is not null then
		return new; -- out of a dump: no claim writes a stamp
	end if;
	new.stamp := concat(mod(pg_current_xact_id()::text::numeric, 4294967296), ':', tg_relid, ':',
		(select d.oid from pg_database d where d.datname = current_database()));
	return new;
end
$fn$;

-- guard locks the view that is there while the token is the newest, until the end of the transaction. Then it looks
-- whether a claim wrote the token in this database: a copy has the view, too.
--
-- It runs in every guarded transaction. So it looks at no more than that one row, and has operators qualified
-- instead of a search_path of its own, which costs as much as the rest.
create or replace function fencepost.guard(catalog text, token text) returns void
	language plpgsql volatile security definer as $fn$
declare
	idle pg_catalog.text := pg_catalog.current_setting('idle_in_transaction_session_timeout');
	here pg_catalog.bool;
begin
	if pg_catalog.octet_length($2) operator(pg_catalog.>) 41 then -- PostgreSQL would cut the name
		perform fencepost.guard_refuse($1, $2);
	end if;
	begin
		execute pg_catalog.concat('lock table fencepost.', pg_catalog.quote_ident(fencepost.guard_view($1, $2)), ' in row exclusive mode');
	exception when undefined_table then
		perform fencepost.guard_refuse($1, $2);
	end;
	select pg_catalog.starts_with(t.stamp, pg_catalog.concat(t.xmin, ':', t.tableoid, ':'))
		into here from fencepost.token t where t.catalog operator(pg_catalog.=) $1;
	if here is not true then
		perform fencepost.guard_refuse($1, $2);
	end if;
	if idle operator(pg_catalog.=) '0' or idle::pg_catalog.interval operator(pg_catalog.>) '10 s'::pg_catalog.interval then
		idle := pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', true);
	end if;
end
$fn$;

-- guard_refuse says why a token is refused, and counts it. The text of a claim is frozen, and begins with its token.
create or replace function fencepost.guard_refuse(catalog text, token text) returns void
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
declare
	seen record;
	now text;
	holder json;
	held numeric[];
	state text;
	problem text;
	remedy text;
begin
	if current_setting('transaction_isolation') in ('repeatable read', 'serializable') and current_setting('transaction_read_only') = 'off' then
		perform from fencepost.token t where t.catalog = $1 for share skip locked; -- fails with 40001 if the token has moved since the snapshot
	end if;
	select t.generation, t.epoch, coalesce(starts_with(t.stamp, concat(t.xmin, ':', t.tableoid, ':')), false) as made_here
		into seen from fencepost.token t where t.catalog = $1;
	now := 'g' || seen.generation || '.e' || seen.epoch;
	begin
		select c.claim::json->'holder' into holder from fencepost.claim c
			where c.catalog = $1 and starts_with(c.claim, '{"token":"' || now || '",') order by c.revision desc limit 1;
	exception when others then null; -- a name that PostgreSQL reads out of no JSON, such as one with a zero byte
	end;
	if octet_length($2) <= 41 then
		held := regexp_match($2, '^g(0|[1-9][0-9]{0,18})[.]e(0|[1-9][0-9]{0,18})$')::numeric[];
	end if;
	if coalesce($2, '') = '' then
		state := 'TKN02';
		problem := 'the transaction has no token';
		remedy := 'give it the one that this process holds, such as by SET LOCAL fencepost.token = ''g7.e41''';
	elsif held is null or greatest(held[1], held[2]) > 9223372036854775807 then
		state := 'TKN03';
		problem := 'what the transaction gave is no token';
		remedy := 'a token has a form like g7.e41';
	elsif not seen.made_here then
		state := 'TKN05';
		problem := 'this database is a copy, in which nobody has claimed yet';
		remedy := case when $1 like 'register:%' then 'if the service is to go on here, run: fencepost guard raise'
			else 'if the service is to go on here, stop it and run: fencepost restored' end;
	elsif now is null or not exists (select from fencepost.guard_views($1)) then
		state := 'TKN06';
		problem := 'no process has claimed it since guards were installed';
		remedy := 'check the name of the catalog, or let a process claim it';
	elsif array[seen.generation::numeric, seen.epoch] > held
		and ($1 like 'register:%'
			or exists (select from fencepost.claim c where c.catalog = $1 and starts_with(c.claim, '{"token":"' || $2 || '",'))) then
		state := 'TKN01';
		problem := 'the transaction has token ' || $2 || ', and ' || now || ' was claimed since';
		remedy := 'this process no longer leads: let it end';
	else
		state := 'TKN04';
		problem := 'token ' || $2 || ' was never issued; the newest is ' || now;
		remedy := 'give the transaction the token that this process holds';
	end if;
	begin
		perform nextval(format('fencepost.%I', 'refused:' || fencepost.guard_name($1)));
	exception when others then null; -- a transaction that can't write, or a catalog that was never claimed
	end;
	raise exception using errcode = state, message = 'fencepost: catalog ' || left(coalesce($1, ''), 63) || ': ' || problem, hint = remedy,
		schema = 'fencepost', detail = json_build_object('catalog', left($1, 63), 'held', left($2, 64), 'current', now, 'holder', holder)::text;
end
$fn$;

-- raise has a register refuse every lower token, and returns the one that it holds then. A register is the token of a
-- service whose catalog lies elsewhere. Not every token of that service comes here: a lower one is stale, whatever the
-- history says. A row that a dump has brought is written anew, also under the same token: it says that the database is
-- the right one.
create or replace function fencepost.raise(register text, generation bigint, epoch bigint, holder text) returns text
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
declare
	name text := 'register:' || $1;
	seen record;
begin
	if current_setting('transaction_read_only') = 'on' then
		raise read_only_sql_transaction;
	end if;
	if not exists (select from fencepost.token t where t.catalog = name) then
		lock table fencepost.token in share update exclusive mode; -- one at a time makes the register
	end if;
	loop
		select t.generation, t.epoch, coalesce(starts_with(t.stamp, concat(t.xmin, ':', t.tableoid, ':')), false) as made_here
			into seen from fencepost.token t where t.catalog = name for update;
		if (seen.generation, seen.epoch) > ($2, $3) or (seen.generation, seen.epoch) = ($2, $3) and seen.made_here then
			return concat('g', seen.generation, '.e', seen.epoch);
		end if;
		insert into fencepost.token as t (catalog, generation, epoch, claim_id, system_id, timeline) values (name, $2, $3, gen_random_uuid(), '', 0)
			on conflict (catalog) do update set generation = excluded.generation, epoch = excluded.epoch, claim_id = excluded.claim_id
			where (t.generation, t.epoch) <= (excluded.generation, excluded.epoch);
		exit when found;
	end loop;
	insert into fencepost.claim (catalog, revision, claim)
		select name, coalesce(max(c.revision), 0) + 1, concat('{"token":"g', $2, '.e', $3, '","holder":', $4, '}')
		from fencepost.claim c where c.catalog = name;
	return concat('g', $2, '.e', $3);
end
$fn$;

-- guard_commit is the deferred constraint trigger of a guarded table, whose argument is the catalog. The check runs
-- at the commit, so that a client which is stopped in a transaction holds no lock.
create or replace function fencepost.guard_commit() returns trigger
	language plpgsql volatile security definer as $fn$
begin
	perform fencepost.guard(tg_argv[0], pg_catalog.current_setting('fencepost.token', true));
	return null;
end
$fn$;

-- Constraint triggers don't fire for TRUNCATE. guard_truncate writes a row into guard_mark instead, whose own
-- constraint trigger, guard_marked, does the check at the commit and removes the row.
create table if not exists fencepost.guard_mark (catalog text collate "C" not null);
alter table fencepost.guard_mark replica identity full; -- else none can be deleted beside a publication FOR ALL TABLES
comment on table fencepost.guard_mark is 'Empty between transactions: carries the check of a TRUNCATE to its commit';

create or replace function fencepost.guard_truncate() returns trigger
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
begin
	insert into fencepost.guard_mark values (tg_argv[0]);
	return null;
end
$fn$;

create or replace function fencepost.guard_marked() returns trigger
	language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $fn$
begin
	delete from fencepost.guard_mark m where m.catalog = new.catalog;
	perform fencepost.guard(new.catalog, current_setting('fencepost.token', true));
	return null;
end
$fn$;

-- A role's default privileges may give functions to nobody.
grant execute on function fencepost.guard(text, text), fencepost.guard_name(text), fencepost.guard_view(text, text), fencepost.guard_commit(), fencepost.guard_truncate() to public;
revoke execute on function fencepost.guard_refuse(text, text), fencepost.guard_views(text), fencepost.await_guards(text), fencepost.raise(text, bigint, bigint, text) from public;

-- Whoever may move the token may wait for guards: the script of an older build has granted the one and not the other.
do $do$
declare
	role text;
begin
	for role in select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
		from pg_class c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
		where c.oid = 'fencepost.token'::regclass and a.privilege_type = 'UPDATE' loop
		execute concat('grant execute on function fencepost.await_guards(text), fencepost.raise(text, bigint, bigint, text) to ', role);
	end loop;
end
$do$;

create or replace trigger guard before insert or update on fencepost.token for each row execute function fencepost.guard_claim();
alter table fencepost.token enable always trigger guard;
drop trigger if exists guard on fencepost.guard_mark;
create constraint trigger guard after insert on fencepost.guard_mark deferrable initially deferred
	for each row execute function fencepost.guard_marked();
alter table fencepost.guard_mark enable always trigger guard;

-- A token that was claimed before there were guards has no stamp yet: the trigger stamps it.
update fencepost.token set epoch = epoch where stamp is null;

comment on function fencepost.guard(text, text) is '` + guardVersion + `';
`
