package errormatrix

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

// statements fail by themselves, each with its code, in the body of a trigger.
func statements() map[string]string {
	return map[string]string{
		"0A000": `perform 1 from public.audit group by id for update`,
		"0Z002": `declare m text; begin get stacked diagnostics m = message_text; end`,
		"20000": `case 1 when 2 then null; end case`,
		"21000": `perform (select n from generate_series(1, 2) n)`,
		"22003": `perform 40000::smallint`,
		"22004": `declare s text; begin execute s; end`,
		"22007": `perform 'soon'::date`,
		"22008": `perform '2026-13-40'::date`,
		"2200M": `perform xmlparse(document '<a>')`,
		"22011": `perform substring('a' from 1 for -1)`,
		"22012": `perform 1 / 0`,
		"22013": `perform sum(1) over (rows between (-1) preceding and current row)`,
		"22014": `perform ntile(0) over ()`,
		"22016": `perform nth_value(1, 0) over ()`,
		"2201B": `perform 'a' ~ '('`,
		"2201E": `perform ln(0)`,
		"2201F": `perform power(0, -1)`,
		"2201G": `perform width_bucket(1, 0, 1, 0)`,
		"2201W": `perform 1 limit -1`,
		"2201X": `perform 1 offset -1`,
		"22025": `perform 'a' like 'a' escape 'ab'`,
		"22026": `perform b'1' & b'11'`,
		"2202E": `perform array_fill(1, array[[1]])`,
		"2202G": `perform 1 from public.audit tablesample system (1) repeatable (null)`,
		"2202H": `perform 1 from public.audit tablesample system (-1)`,
		"22033": `perform jsonb_path_query('[1]', 'strict $[5]')`,
		"22036": `perform jsonb_path_query('"a"', '$.double()')`,
		"22038": `perform jsonb_path_query('[1,2]', '$[*] + 1')`,
		"22039": `perform jsonb_path_query('1', 'strict $[*]')`,
		"2203A": `perform jsonb_path_query('{}', 'strict $.a')`,
		"2203B": `perform jsonb_path_query('"a"', 'strict -$')`,
		"2203C": `perform jsonb_path_query('1', 'strict $.keyvalue()')`,
		"22P02": `perform 'one'::int`,
		"23502": `insert into public.audit values (null)`,
		"23503": `insert into public.audit (id, parent) values (2, 99)`,
		"23505": `insert into public.audit values (1)`,
		"23514": `insert into public.audit values (-1)`,
		"23P01": `insert into public.rooms values ('[1,3]')`,
		"24000": `declare c cursor for select 1; begin open c; move c; delete from public.audit where current of c; end`,
		"25001": `vacuum`,
		"2BP01": `drop table public.audit`,
		"2D000": `commit`,
		"2F005": `perform public.silent()`,
		"34000": `declare c refcursor := 'nowhere'; n int; begin fetch c into n; end`,
		"3F000": `create table nowhere.x ()`,
		"42601": `execute 'not sql'`,
		"42602": `perform 'a b c d'::regclass`,
		"42701": `create table public.x (n int, n int)`,
		"42702": `perform id from public.audit a, public.audit b`,
		"42704": `perform 'a'::public.nothing`,
		"42710": `create role app`,
		"42712": `perform 1 from public.audit a, public.rooms a`,
		"42723": `create function public.act() returns trigger language plpgsql as 'begin end'`,
		"42725": `perform public.twice(null)`,
		"42803": `perform id, count(*) from public.audit`,
		"42804": `perform case when 1 then 2 end`,
		"42830": `create table public.x (n int references public.rooms (span))`,
		"42846": `perform 1::bytea::date`,
		"42883": `perform public.nothing()`,
		"42939": `create schema pg_mine`,
		"42P02": `execute 'select $1'`,
		"42P03": `declare c refcursor := 'same'; d refcursor := 'same'; begin open c for select 1; open d for select 1; end`,
		"42P06": `create schema fencepost`,
		"42P07": `create table public.audit ()`,
		"42P10": `insert into public.audit values (1) on conflict (parent) do nothing`,
		"42P13": `create function public.x() returns int language sql as 'select now()'`,
		"42P16": `create table public.x (n int primary key, m int primary key)`,
		"42P17": `create index on public.audit (random())`,
		"42P18": `perform array[]`,
		"42P19": `with recursive x as (select 1 union select count(*)::int from x) select 1 from x`,
		"42P20": `perform 1 from public.audit where row_number() over () = 1`,
		"42P21": `perform 'a' collate "C" < 'b' collate "POSIX"`,
		"42P22": `perform lower(c || p) from public.texts`,
		"53400": `set local work_mem = '64kB'; set local temp_file_limit = 0; perform count(*) from (select n from generate_series(1, 100000) n order by n desc) x`,
		"54001": `perform public.deep()`,
		"54011": `execute (select 'create table public.x (' || string_agg('c' || n || ' int', ',') || ')' from generate_series(1, 1601) n)`,
		"54023": `execute (select 'select public.nothing(' || string_agg('1', ',') || ')' from generate_series(1, 101))`,
		"55006": `alter table fencepost.log add extra int`,
		"55P04": `alter type public.mood add value 'new'; perform 'new'::public.mood`,
		"P0001": `raise exception 'no'`,
		"P0002": `declare n int; begin select 1 into strict n where false; end`,
		"P0003": `declare n int; begin select g into strict n from generate_series(1, 2) g; end`,
		"P0004": `assert false`,
	}
}

// provokeStatements makes an operator's trigger on the log fail.
func (s *pgServer) provokeStatements(t *testing.T, shared string) {
	s.in(t, "a trigger", shared, func(p *pg) {
		conn := testpg.Connect(p.t, p.server)
		exec := func(sql string) {
			_, err := conn.Exec(p.t.Context(), sql)
			require.NoError(p.t, err, sql)
		}
		body := func(sql string) {
			exec(`create or replace function public.act() returns trigger language plpgsql as $body$ begin ` + sql + `; return new; end $body$`)
		}
		exec(`create table public.audit (id int primary key check (id > 0), parent int references public.audit);
			insert into public.audit values (1);
			create table public.parents (id int references public.audit);
			create table public.rooms (span int4range, exclude using gist (span with &&));
			insert into public.rooms values ('[2,4]');
			create table public.texts (c text collate "C", p text collate "POSIX"); insert into public.texts values ('a', 'b');
			create type public.mood as enum ('old');
			create function public.twice(int) returns int language sql as 'select 1';
			create function public.twice(date) returns int language sql as 'select 1';
			create function public.silent() returns int language plpgsql as 'begin end';
			create function public.deep() returns int language plpgsql as 'begin return public.deep(); end'`)
		body(`null`)
		exec(`create trigger act before insert on fencepost.log for each row execute function public.act()`)
		for code, sql := range statements() {
			body(sql)
			err := p.commit(p.well, 1)
			if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != code {
				p.t.Errorf("%s: %s gives %v", code, sql, err)
				continue
			}
			s.x.expect(p.t, statement, code, true, err)
		}
		for _, f := range s.x.table.Families {
			if f.Name != "SQLSTATE" {
				continue
			}
			for _, e := range f.Entries {
				if e.Code == "00000" {
					continue // no trigger can raise it
				}
				body(`raise exception using errcode = '` + e.Code + `'`)
				s.x.expect(p.t, raised, e.Code, true, p.commit(p.well, 1))
			}
		}
		exec(`drop trigger act on fencepost.log`)
		require.NoError(p.t, p.commit(p.well, 1))
	})
}
