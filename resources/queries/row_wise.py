"""Check that a DuckDB query is row-wise, that is, takes each row by itself, from the form into which DuckDB parses it.

The guarantee depends on this: one person's rows must not decide what becomes of another's. Everything that is not
listed here is refused: each part of a query by its kind, each key of a part, each function by name. So a form that a
later DuckDB adds is refused until it is listed. The listed parts compose: rows of tables and Parquet files pass through
expressions of the same row, `WHERE` on such expressions, queries in `FROM`, `WITH`, and `UNION ALL`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

ANY: frozenset[object] = frozenset()
"""Stands for any value of a key. What lies below the key is checked as well."""

# Parts that yield rows, by type. A key that is not listed must be empty; a listed key holds one of the values, or any.
RELATIONS: Mapping[str, Mapping[str, frozenset[object]]] = {
    "SELECT_NODE": {
        "cte_map": ANY,
        "select_list": ANY,
        "from_table": ANY,
        "where_clause": ANY,
        "modifiers": ANY,
        "aggregate_handling": frozenset(["STANDARD_HANDLING"]),
    },
    "SET_OPERATION_NODE": {
        "cte_map": ANY,
        "modifiers": ANY,
        "children": ANY,
        "left": ANY,
        "right": ANY,
        "setop_type": frozenset(["UNION"]),
        "setop_all": frozenset([True]),
    },
    "BASE_TABLE": {"table_name": ANY, "schema_name": ANY, "catalog_name": ANY},
    "SUBQUERY": {"subquery": ANY},
    "EXPRESSION_LIST": {"values": ANY},
    "EMPTY": {},
    "TABLE_FUNCTION": {"function": ANY, "with_ordinality": frozenset(["WITHOUT_ORDINALITY"])},
    "JOIN": {
        "left": ANY,
        "right": ANY,
        "condition": ANY,
        "join_type": frozenset(["INNER", "LEFT"]),
        "ref_type": frozenset(["REGULAR", "CROSS"]),
        "is_implicit": ANY,
        "nearest_count": ANY,
        "nearest_order_type": ANY,
    },
}
# Parts that yield values, by class.
EXPRESSIONS: Mapping[str, Mapping[str, frozenset[object]]] = {
    "COLUMN_REF": {"column_names": ANY},
    "CONSTANT": {"literal": ANY, "value": ANY},
    "CAST": {"child": ANY, "try_cast": ANY, "type_expr": ANY},
    "TYPE": {"type_name": ANY, "children": ANY},
    "COLLATE": {"child": ANY, "collation": ANY},
    "CASE": {"case_checks": ANY, "else_expr": ANY},
    "BETWEEN": {"input": ANY, "lower": ANY, "upper": ANY},
    "COMPARISON": {"left": ANY, "right": ANY},
    "CONJUNCTION": {"children": ANY},
    "OPERATOR": {"children": ANY},
    "FUNCTION": {"function_name": ANY, "arguments": ANY, "children": ANY, "is_operator": ANY},
    "LAMBDA": {"lhs": ANY, "expr": ANY, "syntax_type": ANY},
    "STAR": {
        "relation_name": ANY,
        "exclude_list": ANY,
        "qualified_exclude_list": ANY,
        "replace_list": ANY,
        "rename_list": ANY,
    },
}
# Objects without a type of their own, which contain the parts above.
WRAPPERS: Mapping[str, frozenset[object]] = dict.fromkeys(
    (
        "statements",
        "node",
        "map",
        "key",
        "value",
        "materialized",
        "query_node",
        "aliases",
        "name",
        "expression",
        "when_expr",
        "then_expr",
        "column",
        "error",
    ),
    ANY,
)
# Keys that give the position and the name of a part.
LABELS = frozenset(
    ["class", "type", "alias", "query_location", "query_location_length", "qualified_name", "column_name_alias"]
)
OPERATORS = frozenset(
    [
        "OPERATOR_NOT",
        "OPERATOR_IS_NULL",
        "OPERATOR_IS_NOT_NULL",
        "OPERATOR_COALESCE",
        "OPERATOR_NULLIF",
        "OPERATOR_TRY",
        "COMPARE_IN",
        "COMPARE_NOT_IN",
        "ARRAY_EXTRACT",
        "ARRAY_SLICE",
        "ARRAY_CONSTRUCTOR",
        "STRUCT_EXTRACT",
        "ARROW",
    ]
)

# Scalar functions whose value follows from their arguments alone: no state, clock, randomness, catalog or statistics.
OPERATORS_AND_PATTERNS = """
    + - * / // % ** ^ || = != < <= > >= & | << >> @> <@ ^@ ~~ !~~ ~~* !~~* ~~~ ->> not_like_escape like_escape
    ilike_escape not_ilike_escape regexp_matches regexp_full_match regexp_replace regexp_extract
    regexp_extract_all regexp_split_to_array regexp_escape
"""
TEXT = """
    lower upper lcase ucase trim ltrim rtrim length len char_length character_length strlen length_grapheme left
    right left_grapheme right_grapheme substring substr substring_grapheme concat concat_ws replace translate
    overlay repeat reverse lpad rpad position strpos instr contains starts_with ends_with prefix suffix split
    split_part string_split str_split string_split_regex str_split_regex string_to_array array_to_string
    nfc_normalize strip_accents ascii unicode ord chr format printf encode decode base64 to_base64 from_base64
    hex unhex to_hex from_hex url_encode url_decode md5 sha1 sha256 hash levenshtein damerau_levenshtein jaccard
    jaro_similarity jaro_winkler_similarity parse_filename parse_dirname parse_dirpath parse_path
"""
CHOICES_AND_NUMBERS = """
    if nullif greatest least typeof abs sign ceil ceiling floor round round_even trunc mod fmod power pow sqrt
    cbrt exp ln log log2 log10 isnan isinf isfinite add subtract multiply divide bit_length octet_length
"""
TIME = """
    strptime try_strptime strftime epoch epoch_ms epoch_us epoch_ns to_timestamp make_timestamp
    make_timestamp_ms make_timestamp_ns make_timestamptz make_date make_time timezone date_trunc datetrunc
    date_part datepart date_diff datediff date_sub datesub date_add time_bucket year month day hour minute
    second millisecond microsecond quarter week weekday weekofyear yearweek dayofweek dayofmonth dayofyear
    dayname monthname isodow isoyear last_day to_years to_months to_weeks to_days to_hours to_minutes to_seconds
    to_milliseconds to_microseconds
"""
JSON = """
    json json_extract json_extract_string json_extract_path json_extract_path_text json_value json_exists
    json_valid json_type json_keys json_array_length json_contains json_array json_object json_quote
    json_transform json_transform_strict from_json from_json_strict to_json row_to_json array_to_json
    json_merge_patch
"""
LISTS_AND_STRUCTS = """
    list_value list_pack array_value row struct_pack struct_extract struct_extract_at struct_insert map
    map_from_entries map_extract map_extract_value map_keys map_values map_entries map_contains element_at
    cardinality array_length list_extract list_element array_extract list_slice array_slice list_contains
    list_has array_contains array_has list_has_any list_has_all array_has_any array_has_all list_position
    list_indexof array_position list_concat list_cat array_cat array_concat list_append list_prepend
    array_append array_prepend list_distinct array_distinct list_unique list_sort array_sort list_reverse_sort
    array_reverse_sort list_reverse array_reverse list_filter array_filter list_transform array_transform
    list_apply list_reduce array_reduce list_zip flatten list_first list_last list_min list_max list_sum
    list_count list_string_agg unnest range generate_series
"""
FUNCTIONS = frozenset(
    " ".join([OPERATORS_AND_PATTERNS, TEXT, CHOICES_AND_NUMBERS, TIME, JSON, LISTS_AND_STRUCTS]).split()
)
ROW_MAKERS = frozenset(["unnest", "range", "generate_series"])
"""Table functions of constants, or of the row that they are joined to."""
PARQUET = "read_parquet"
PARQUET_OPTIONS = frozenset(["filename", "hive_partitioning", "hive_types_autocast", "binary_as_string"])
PLAIN_FOLDERS = frozenset(["hive_partitioning", "hive_types_autocast"])
"""Options of which one must be off where a pattern names folders. Otherwise all folder names together decide a type."""

# Names to which DuckDB gives a meaning where no column has them: a row's position among others, and the clock.
NO_COLUMNS = frozenset(
    [
        "rowid",
        "file_row_number",
        "file_index",
        "current_date",
        "current_time",
        "current_timestamp",
        "localtime",
        "localtimestamp",
    ]
)
# The words of a query for names in its parsed form.
SAID = {
    "WINDOW": "a window function",
    "SUBQUERY": "a subquery in an expression",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its number",
    "LIMIT_MODIFIER": "LIMIT",
    "LIMIT_PERCENT_MODIFIER": "LIMIT",
    "DISTINCT_MODIFIER": "DISTINCT",
    "ORDER_MODIFIER": "ORDER BY",
    "RECURSIVE_CTE_NODE": "WITH RECURSIVE",
    "INSERT_QUERY_NODE": "INSERT",
    "SHOW_REF": "SUMMARIZE or DESCRIBE",
    "group_expressions": "GROUP BY",
    "group_sets": "GROUP BY",
    "aggregate_handling": "GROUP BY",
    "setop_all": "UNION without ALL",
    "UNION_BY_NAME": "UNION ALL BY NAME",
    "columns": "COLUMNS",
    "at_clause": "AT",
    "with_ordinality": "WITH ORDINALITY",
    "using_columns": "JOIN with USING",
}


@dataclass(frozen=True)
class Catalog:
    """The names that the database itself defines, in lower case, each also with its schema, and with its database."""

    tables: frozenset[str]
    computed: frozenset[str]
    """Tables with generated columns, which may hide a sequence or randomness."""
    views: frozenset[str]
    macros: frozenset[str]
    """Macros for values and for tables. DuckDB prefers a macro to its own function of the same name."""


def not_row_wise(form: Mapping[str, Any], catalog: Catalog) -> list[str]:
    """Return what a query uses beyond row-wise parts; empty if the query is row-wise.

    Args:
      form: the result of `json_serialize_sql` for one statement.
      catalog: the names that the database defines.
    """
    named_queries = {str(entry["key"]).lower() for part in _objects(form) for entry in _named_queries(part)}
    known = replace(catalog, tables=catalog.tables | named_queries)
    return sorted({said for part in _parts(form) for said in _faults(part, known)})


def files_read(form: Mapping[str, Any]) -> list[list[str]]:
    """Return the names or patterns of the Parquet files behind each table of a row-wise query."""
    read = []
    for part in _objects(form):
        if part.get("type") == "BASE_TABLE" and str(part["table_name"]).lower().endswith(".parquet"):
            read.append([str(part["table_name"])])
        elif str(part.get("function_name", "")).lower() == PARQUET:
            files = dict(_option(argument) for argument in part["arguments"]).get("", {})
            read.append([str(_literal(value)) for value in _objects(files) if _kind(value) == "CONSTANT"])
    return read


def columns_named(form: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names of columns in a query, in lower case; None if it selects all."""
    parts = list(_objects(form))
    if any(_kind(part) == "STAR" for part in parts):
        return None
    return frozenset(name.lower() for part in parts for name in part.get("column_names", ()))


def _named_queries(part: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the named queries of a `WITH`."""
    defined = part.get("cte_map")
    return defined.get("map", ()) if isinstance(defined, Mapping) else ()


def _objects(form: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(form, Mapping):
        yield form
    for below in form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ():
        yield from _objects(below)


def _parts(form: object) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a form from the top, except those below a refused part or a constant."""
    if isinstance(form, list):
        for below in form:
            yield from _parts(below)
    if isinstance(form, Mapping) and not _is_empty(form):
        yield form
        if _kind(form) != "CONSTANT":
            for key in _listed(form) or ():
                yield from _parts(form.get(key))


def _kind(part: Mapping[str, Any]) -> str:
    return str(part.get("class", part.get("type", "")))


def _listed(part: Mapping[str, Any]) -> Mapping[str, frozenset[object]] | None:
    """Return the keys that a part may fill, or None if its kind is refused."""
    if "class" in part:
        return EXPRESSIONS.get(_kind(part))
    return RELATIONS.get(_kind(part)) if "type" in part else WRAPPERS


def _is_empty(value: object) -> bool:
    if isinstance(value, Mapping):  # DuckDB gives a function an order even where the query has none
        return all(_is_empty(below) or below == "ORDER_MODIFIER" for below in value.values())
    return value is None or value is False or value == "" or value == []


def _faults(part: Mapping[str, Any], catalog: Catalog) -> Iterator[str]:
    listed = _listed(part)
    if listed is None:
        yield _said(_kind(part))
        return
    for key in dict.fromkeys([*part, *(key for key, values in listed.items() if values)]):
        if key not in LABELS and not _is_admitted(value := part.get(key), listed.get(key)):
            yield _said(str(value) if key in ("setop_type", "join_type", "ref_type") else key, key)
    match _kind(part):
        case "BASE_TABLE":
            yield from _table_faults(part, catalog)
        case "TABLE_FUNCTION":
            yield from _table_function_faults(part["function"])
        case "JOIN" if _reads(part["right"]):
            yield "a join of tables"
        case "FUNCTION":
            yield from _function_faults(str(part["function_name"]), catalog)
        case "OPERATOR" if part["type"] not in OPERATORS:
            yield _said(part["type"])
        case "COLUMN_REF":
            yield from (f"the column {name}" for name in part["column_names"] if name.lower() in NO_COLUMNS)


def _is_admitted(value: object, admitted: frozenset[object] | None) -> bool:
    if admitted is None:
        return _is_empty(value)
    return admitted is ANY or value in admitted


def _said(name: str, key: str = "") -> str:
    if name in SAID:
        return SAID[name]
    plain = name.replace("_", " ").upper()
    return f"{plain} JOIN" if key in ("join_type", "ref_type") else plain


def _function_faults(name: str, catalog: Catalog) -> Iterator[str]:
    if name.lower() in catalog.macros:
        yield f"the macro {name}"
    elif name.lower() not in FUNCTIONS | {PARQUET}:
        yield f"the function {name}"


def _table_faults(part: Mapping[str, Any], catalog: Catalog) -> Iterator[str]:
    name = ".".join(str(part[key]) for key in ("catalog_name", "schema_name", "table_name") if part.get(key))
    if name.lower() in catalog.views:
        yield f"the view {name}"
    elif name.lower() in catalog.computed:
        yield f"the table {name}, which has generated columns"
    elif name.lower() in catalog.tables:
        return
    elif (file := str(part["table_name"])).lower().endswith(".parquet"):
        yield from _folder_faults(file, plain=False)
    elif "." in file or "/" in file:
        yield "a file that is no .parquet, whose types would be guessed from all rows (see source.kind = 'file')"
    else:
        yield f"{name}, which is no table of the database"


def _table_function_faults(function: Mapping[str, Any]) -> Iterator[str]:
    name = str(function["function_name"]).lower()
    if name in ROW_MAKERS:
        return
    if name != PARQUET:
        yield f"the table function {function['function_name']}"
        return
    options = dict(_option(argument) for argument in function["arguments"])
    yield from (
        f"the option {option} of read_parquet" for option in options if option and option not in PARQUET_OPTIONS
    )
    values = [part for part in _objects(list(options.values())) if "class" in part]
    if any(_kind(part) != "CONSTANT" and part.get("function_name") != "list_value" for part in values):
        yield "read_parquet of what is no constant"
    off = {option for option, value in options.items() if _literal(value) == "false"}
    for value in _objects(options.get("", {})):
        if _kind(value) == "CONSTANT":
            yield from _folder_faults(str(_literal(value)), plain=bool(off & PLAIN_FOLDERS))


def _option(argument: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return an argument's name, empty for the files, and its value; DuckDB parses `name = value` as a comparison."""
    expression = argument["expression"]
    if _kind(expression) == "COMPARISON" and _kind(expression["left"]) == "COLUMN_REF":
        return str(expression["left"]["column_names"][-1]).lower(), expression["right"]
    return str(argument.get("name", "")).lower(), expression


def _literal(value: Mapping[str, Any]) -> object:
    literal = value.get("literal")
    return literal.get("text") if isinstance(literal, Mapping) else None


def _folder_faults(pattern: str, *, plain: bool) -> Iterator[str]:
    if not plain and any(sign in pattern.rpartition("/")[0] for sign in "*?["):
        yield (
            "a pattern of folders, whose names decide together which type a part such as user=7 has (use"
            " read_parquet('...', hive_types_autocast = false))"
        )


def _reads(form: object) -> bool:
    """Return whether a part of a query yields rows of a table or of files."""
    return any(part.get("type") == "BASE_TABLE" or part.get("function_name") == PARQUET for part in _objects(form))
