"""What a command prints: data on stdout, words on stderr.

Three forms of the same rows: a table with relative times on a terminal, tab-separated lines with a header
anywhere else, and with `--json` exact JSON (a list is an array of objects, one thing is an object, an instant is
RFC 3339 UTC). A field whose name ends in `_at` holds integer milliseconds; the others hold plain JSON values.
Names and texts come from strangers, so characters that drive a terminal are shown as escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import typer

from nanotasks.clock import iso, now_ms

Row: TypeAlias = Mapping[str, Any]

_JOINERS = {"\u200c", "\u200d"}
_UNITS = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (30 * 86400, 86400, "d"))
_wanted = {"json": False}


def use_json(wanted: bool) -> None:
    """Choose the form of everything this process prints from now on."""
    _wanted["json"] = wanted


def is_json() -> bool:
    """Whether `--json` was given."""
    return _wanted["json"]


def is_for_people() -> bool:
    """Whether what is printed is read by a person, at a terminal."""
    return not is_json() and sys.stdout.isatty()


def show_list(rows: Sequence[Row], columns: Sequence[str], *, empty: str) -> None:
    """Print rows; text forms show `columns` only, each `field` or `field=heading on a terminal`.

    `empty` is said when there are no rows.
    """
    if is_json():
        _print_json([_exact(row) for row in rows])
    elif not rows:
        say(empty)
    elif is_for_people():
        _print_table(rows, columns)
    else:
        names = [column.partition("=")[0] for column in columns]
        _print_lines([names, *(_cells(row, names) for row in rows)])


def show_one(row: Row) -> None:
    """Print everything about one thing."""
    if is_json():
        _print_json(_exact(row))
    elif is_for_people():
        _print_fields(_flat(row))
    else:
        flat = _flat(row)
        _print_lines([(name, _cell(flat, name)) for name in flat])


def show_result(row: Row, key: str, words: str) -> None:
    """Print what a change made: the whole row as JSON, otherwise its `key` as data and what happened as words."""
    if is_json():
        _print_json(_exact(row))
    else:
        typer.echo(plain(str(row[key])))
        say(words)


def say(words: str) -> None:
    """Words for a person, on stderr; nothing is said with `--json`."""
    if not is_json():
        typer.echo(plain(words, keep="\n"), err=True)


def say_if_cut(rows: Sequence[Row], limit: int) -> None:
    """Say that there is more, when one row more than `limit` (0: no limit) was fetched to know it."""
    if limit and len(rows) > limit:
        say(f"Only {limit} are shown; there are more. --limit 0 shows all.")


def show_text(text: str) -> None:
    """Print a text that is data, such as an exported document."""
    typer.echo(plain(text, keep="\n"))


def show_json(value: Any) -> None:
    """Print a value that is JSON in every form, such as an exported document."""
    _print_json(value)


def _print_json(value: Any) -> None:
    """One thing is indented; a list has a line for each, which takes a tenth of the time."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    if isinstance(value, list) and value:
        encode = json.JSONEncoder(ensure_ascii=not utf8).encode
        typer.echo("[\n" + ",\n".join(map(encode, value)) + "\n]")
    else:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=not utf8))


def _exact(row: Row) -> dict[str, Any]:
    # Most values are texts and nothing, which stay as they are.
    return {
        name: value if value is None or type(value) is str else _exact_value(name, value) for name, value in row.items()
    }


def _exact_value(name: str, value: Any) -> Any:
    if type(value) is int:
        return iso(value) if name.endswith("_at") or name == "at" else value
    if isinstance(value, list):
        return [_exact(item) if isinstance(item, Mapping) else item for item in value]
    return _exact(value) if isinstance(value, Mapping) else value


def _flat(row: Row) -> Row:
    """The row with the fields of an object in it beside the others, as `config.model`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            flat.update({f"{name}.{inner}": deeper for inner, deeper in value.items()})
        else:
            flat[name] = value
    return flat


def _cells(row: Row, names: Sequence[str]) -> Sequence[str]:
    """The cells of one line; whether they are printable is asked once, since there may be ten thousand lines."""
    cells = [value if type(value := row[name]) is str else _cell(row, name) for name in names]
    return cells if "".join(cells).isprintable() else [plain(cell) for cell in cells]


def _cell(row: Row, name: str) -> str:
    value = row[name]
    if value is None:
        return ""
    if type(value) is not str:
        value = _exact_value(name, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def plain(text: str, *, keep: str = "") -> str:
    """Text without characters that drive a terminal or end a field: each is shown as its escape."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or c in _JOINERS else c.encode("unicode_escape").decode() for c in text
    )


def _print_lines(lines: Sequence[Sequence[str]]) -> None:
    typer.echo("\n".join("\t".join(line) for line in lines))


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    from nanotasks.ops.cli import tables

    named = [column.partition("=") for column in columns]
    headings = [heading or name.removesuffix("_at").replace("_", " ").upper() for name, _, heading in named]
    cells = [[_friendly(row, name) for name, _, _ in named] for row in rows]
    console = Console()
    wide = tables.widths(headings, cells, console.width)
    for number, line in enumerate([headings, *cells]):
        shown = (tables.cut(cell, room).ljust(room) for cell, room in zip(line, wide, strict=True))
        style = "" if number else "bold"
        console.print(Text((" " * tables.GAP).join(shown).rstrip(), style=style), soft_wrap=True, highlight=False)


def _print_fields(row: Row) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    lists = {name: value for name, value in row.items() if _is_table(value)}
    for name, value in row.items():
        if name in lists:
            continue
        shown = _friendly(row, name)
        if name.endswith("_at") and isinstance(value, int):
            shown = f"{iso(value)} ({shown})"
        table.add_row(name.removesuffix("_at").replace("_", " "), Text(shown))
    console = Console()
    console.print(table)
    for name, rows in lists.items():
        console.print(f"\n{name.replace('_', ' ')}", style="bold")
        _print_table(rows, [column for column in rows[0] if any(one.get(column) is not None for one in rows)])


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _friendly(row: Row, name: str) -> str:
    value = row[name]
    if name.endswith("_at") and isinstance(value, int):
        return relative(value, now_ms())
    return _cell(row, name) or "-"


def relative(ms: int, now: int) -> str:
    """`12 s ago`, `in 3 h`; a date when it is more than 30 days away."""
    seconds = abs(now - ms) // 1000
    for limit, unit, name in _UNITS:
        if seconds < limit:
            count = f"{seconds // unit} {name}"
            return f"{count} ago" if ms <= now else f"in {count}"
    return iso(ms)[:10]
