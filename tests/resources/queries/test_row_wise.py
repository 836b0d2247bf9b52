"""A DuckDB query is run only if its form shows that each row is taken by itself; all that is not listed is refused."""

import re
from pathlib import Path

import duckdb
import polars as pl
import pytest

from resources.queries.query_reader import QueryRefused, duckdb_batches
from resources.queries.row_wise import EXPRESSIONS, FUNCTIONS, RELATIONS

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "own-corpus.md"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("queried") / "chat.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(
            "create table messages (body varchar, who bigint, sent timestamp, turns struct(role varchar,"
            " content varchar)[], extra json, meta struct(language varchar))"
        )
        connection.execute(
            "insert into messages values (' Why? ', 7, '2026-01-02 03:04:05',"
            " [{'role': 'user', 'content': 'Why?'}, {'role': 'assistant', 'content': 'So.'}],"
            " '{\"lang\": \"en\", \"at\": 1767323045000}', {'language': 'en'}), (null, null, null, null, null, null)"
        )
        connection.execute("create table likes (who bigint, number bigint)")
        connection.execute("create table computed (a integer, b double generated always as (random()))")
        connection.execute("create view busy as select * from messages where who in (select who from likes)")
        connection.execute("create macro upper(x) as (select max(body) from messages)")
        connection.execute("create macro firsts() as table from messages limit 1")
        connection.execute("create macro range(n) as table select who from messages")
        connection.execute("create sequence numbers")
    return path


def run(query: str, folder: Path, database: Path | None) -> pl.DataFrame:
    return pl.concat(duckdb_batches(database, query, folder))


REFUSED = [
    # rows met with other rows
    ("select body from messages join likes using (who)", "a join of tables"),
    ("select body from messages, likes", "a join of tables"),
    ("select body from messages natural join likes", "NATURAL JOIN"),
    ("select body from messages positional join likes", "POSITIONAL JOIN"),
    ("select body from messages positional join (values ('en'), ('de')) as l(language)", "POSITIONAL JOIN"),
    ("select body from messages asof join likes on messages.who >= likes.who", "ASOF JOIN"),
    ("select body from messages semi join likes using (who)", "SEMI JOIN"),
    ("select body from messages anti join (values (7)) as l(x) on who = x", "ANTI JOIN"),
    ("select body from messages right join (values (7)) as l(x) on who = x", "RIGHT JOIN"),
    ("select body from messages full join (values (7)) as l(x) on who = x", "FULL JOIN"),
    ("select body from messages m, lateral (select number from likes l where l.who = m.who)", "a join of tables"),
    ("select body from messages where who in (select who from likes)", "a subquery in an expression"),
    ("select body from messages m where exists (from likes where likes.who = m.who)", "a subquery in an expression"),
    ("select (select max(number) from likes) as body", "a subquery in an expression"),
    ("select array(select body from messages) as body", "a subquery in an expression"),
    ("select body from messages where who = any(select who from likes)", "a subquery in an expression"),
    ("select count(*) from messages", "the function count_star"),
    ("select max(body) from messages", "the function max"),
    ("select first(body order by sent) from messages", "the function first"),
    ("select geomean(who) from messages", "the function geomean"),
    ("select who from messages group by who", "GROUP BY"),
    ("select who from messages group by all", "GROUP BY"),
    ("select 1 as who from messages group by ()", "GROUP BY"),
    ("select who from messages having true", "HAVING"),
    ("select lag(body) over (order by sent) as body from messages", "a window function"),
    ("select body from messages qualify row_number() over (partition by body) = 1", "QUALIFY"),
    ("select distinct body from messages", "DISTINCT"),
    ("select distinct on (who) body from messages", "DISTINCT"),
    ("select body from messages order by sent", "ORDER BY"),
    ("select body from messages limit 5", "LIMIT"),
    ("select body from messages offset 1", "LIMIT"),
    ("select body from messages limit 5%", "LIMIT"),
    ("select body from (select body from messages limit 1)", "LIMIT"),
    ("with m as (select body from messages limit 1) select body from m", "LIMIT"),
    ("select body from messages union all (select body from messages limit 1)", "LIMIT"),
    ("select body from messages using sample 1", "SAMPLE"),
    ("select body from messages tablesample 50%", "SAMPLE"),
    ("select body from messages union select 'x'", "UNION without ALL"),
    ("select body from messages except all select 'x'", "EXCEPT"),
    ("select body from messages intersect all select 'x'", "INTERSECT"),
    ("with recursive m as (select body from messages union all select body from m) from m", "WITH RECURSIVE"),
    ("from (pivot messages on body in ('x') using count(*))", "PIVOT"),
    ("summarize messages", "SUMMARIZE or DESCRIBE"),
    # state, chance and the clock
    ("select body from messages where setseed(0.5) is null and random() < 0.5", "the function random"),
    ("select body from messages where setseed(0.5) is null", "the function setseed"),
    ("select uuid()::varchar as body from messages", "the function uuid"),
    ("select gen_random_uuid()::varchar as body from messages", "the function gen_random_uuid"),
    ("select nextval('numbers') as who from messages", "the function nextval"),
    ("select currval('numbers') as who from messages", "the function currval"),
    ("select body from messages where sent < now()", "the function now"),
    ("select body from messages where sent < current_timestamp", "the column current_timestamp"),
    ("select body from messages where age(sent) > interval 3 days", "the function age"),
    ("select getvariable('x') as body from messages", "the function getvariable"),
    ("select current_setting('threads') as body from messages", "the function current_setting"),
    ("select stats(body) as body from messages", "the function stats"),
    ("select vector_type(body) as body from messages", "the function vector_type"),
    ("select list_aggregate([body], 'first') as body from messages", "the function list_aggregate"),
    # the place of a row among others
    ("select body from messages where rowid < 3", "the column rowid"),
    ('select m."ROWID" as who from messages m', "the column ROWID"),
    ("select file_row_number as who from 'a.parquet'", "the column file_row_number"),
    ("select file_index as who from 'a.parquet'", "the column file_index"),
    ("from read_parquet('a.parquet', file_row_number = true)", "the option file_row_number of read_parquet"),
    ("select x, n from unnest(['a', 'b']) with ordinality as t(x, n)", "WITH ORDINALITY"),
    ("select #1 from messages", "a column by its number"),
    # what hides the rest
    ("select body from busy", "the view busy"),
    ("select body from main.BUSY", "the view main.BUSY"),
    ("select b from computed", "the table computed, which has generated columns"),
    ("select upper(body) as body from messages", "the macro upper"),
    ("select body from firsts()", "the macro firsts"),
    ("select body from messages, range(3)", "the macro range"),
    ("from query('select distinct body from messages limit 2')", "the table function query"),
    ("from query_table('messages')", "the table function query_table"),
    ("from duckdb_tables()", "the table function duckdb_tables"),
    ("select table_name from information_schema.tables", "information_schema.tables, which is no table"),
    ("select body from messages at (version => 1)", "AT"),
    ("select columns('b.*') from messages", "COLUMNS"),
    ("select main.lower(body) as body from messages", "SCHEMA"),
    ("with m as (insert into likes values (1, 2) returning *) from m", "INSERT"),
    # types that all rows decide
    ("from 'a.csv'", "a file that is no .parquet"),
    ("from read_csv('a.csv')", "the table function read_csv"),
    ("from read_json('a.json')", "the table function read_json"),
    ("from 'x/*/*.parquet'", "a pattern of folders"),
    ("from read_parquet('x/**/*.parquet')", "a pattern of folders"),
    ("from messages, read_parquet(body)", "read_parquet of what is no constant"),
    # columns that some parts lack
    ("from messages union all by name from likes", "UNION ALL BY NAME"),
    ("from read_parquet(['a.parquet', 'b.parquet'], union_by_name = true)", "the option union_by_name of read_parquet"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "named"), REFUSED)
def test_a_query_that_may_let_rows_decide_about_each_other_is_refused_by_name(
    database: Path, tmp_path: Path, query: str, named: str
) -> None:
    with pytest.raises(QueryRefused, match=rf"source\.query uses .*{re.escape(named)}.*another's"):
        run(query, tmp_path, database)


RUN = [
    "from messages",
    "table messages;",
    "-- what people wrote\nselect body from messages /* all of it */ ;",
    "select lower(trim(body)) as text, who::varchar as who from main.messages as m where m.who is not null",
    "select m.* exclude (extra) replace (trim(body) as body) from chat.main.messages as m",
    "select concat(body, coalesce(who, 0)), body || '!', body like 'W%', body ilike 'w%', body ~ 'W' from messages",
    "select case when who > 3 then body when who is null then 'none' end as text from messages",
    "select case who when 7 then 'seven' end, if(who = 7, 'a', 'b'), nullif(body, ''), ifnull(body, 'x') from messages",
    "select extra->>'$.lang', extra->'lang'->>0, json_extract_string(extra, '$.lang') from messages",
    "select epoch_ms((extra->>'at')::bigint), to_timestamp(0), epoch(sent), strftime(sent, '%Y') from messages",
    "select strptime('2026-01-02', '%Y-%m-%d'), try_strptime(body, '%Y'), try_cast(body as integer) from messages",
    "select regexp_replace(body, '\\s+', ' ', 'g'), regexp_extract(body, '(W)', 1), who from messages",
    "select turns[1].content, turns[-1].role, meta.language, m.meta['language'], body[1:3] from messages m",
    "select list_filter(turns, lambda t: t.role = 'user')[1].content as text from messages",
    "select [t.content for t in turns if t.role = 'user'] as texts from messages",
    "select unnest(turns).content as text, who from messages",
    "select t.turn.content as text from messages, unnest(turns) as t(turn) where t.turn.role = 'user'",
    "select body, language from messages left join (values (7, 'en')) as l(sender, language) on who = sender",
    "select body from messages where who not in (3, 4) and sent between '2020-01-01' and '2030-01-01' or not who = 1",
    "select sent at time zone 'UTC', date_trunc('day', sent), year(sent), sent + interval 1 day from messages",
    "select md5(body), extract(year from sent), substring(body from 1 for 3), position('W' in body) from messages",
    "with m as (select body as text from messages where who > 1) select text from (select text from m) as n",
    "select body from messages union all select 'x' as body union all select body from messages",
    "select {'a': body, 'b': [who, 1]} as s, row(who, body), map {'k': body}, cast(who as decimal(9, 2)) from messages",
    "select try(body::integer), body collate nocase, abs(-who), who % 2, round(who / 3, 2), -who from messages",
    "values ('Why?')",
    "select 'x' as text",
]  # fmt: skip


@pytest.mark.parametrize("query", RUN)
def test_a_query_that_takes_each_row_by_itself_is_run(database: Path, tmp_path: Path, query: str) -> None:
    assert len(run(query, tmp_path, database)) > 0


def test_parquet_files_are_read_by_name_pattern_and_option(tmp_path: Path) -> None:
    for folder in ("user=7", "user=2024-1-5"):
        (tmp_path / folder).mkdir()
        pl.DataFrame({"body": ["Why?"]}).write_parquet(tmp_path / folder / "a.parquet")
    for option in ("hive_types_autocast = false", "hive_types_autocast := false, filename := true"):
        rows = run(f"from read_parquet('{tmp_path}/*/*.parquet', {option})", tmp_path, None)
        assert set(rows["user"]) == {"7", "2024-1-5"}
    one, other = f"{tmp_path}/user=7/a.parquet", f"{tmp_path}/user=2024-1-5/*.parquet"
    assert len(run(f"select body from read_parquet(['{one}', '{other}'])", tmp_path, None)) == 2
    assert len(run(f"select body from '{one}' union all select body from '{other}'", tmp_path, None)) == 2


def test_a_listed_function_keeps_no_state_and_looks_at_no_other_row() -> None:
    with duckdb.connect() as connection:
        known = connection.execute("select function_name, function_type, stability from duckdb_functions()").fetchall()
    kinds = {name: [(kind, stability) for other, kind, stability in known if other == name] for name, _, _ in known}
    for name in FUNCTIONS - {"unnest"}:
        assert not any(kind == "aggregate" or stability == "VOLATILE" for kind, stability in kinds[name]), name
        assert any(kind in ("scalar", "macro") for kind, _ in kinds[name]), name


def test_a_kind_of_part_that_is_not_listed_is_refused_whatever_it_is(database: Path, tmp_path: Path) -> None:
    """Every part that the run queries are made of is needed: without it in the list, one of them is refused."""
    for kinds in (RELATIONS, EXPRESSIONS):
        for kind in list(kinds):
            with pytest.MonkeyPatch.context() as patch:
                patch.delitem(kinds, kind)  # type: ignore[arg-type]
                assert any(is_refused(query, tmp_path, database) for query in RUN), kind


def is_refused(query: str, folder: Path, database: Path) -> bool:
    try:
        run(query, folder, database)
    except QueryRefused:
        return True
    return False


def test_the_guide_lists_the_functions_that_a_query_may_use() -> None:
    listed = GUIDE.read_text().split("<!-- functions of queries -->")[1]
    assert set(re.findall(r"`([^`]+)`", listed)) == {name for name in FUNCTIONS if name[0].isalpha()}
