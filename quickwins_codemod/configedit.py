"""Putting rules and options into a `pyproject.toml`, with every other byte left as it is.

The file is cut into its statements (`tomltext.py`). Those that set what is to be set are replaced,
others are added below the header of their table, and tables that are not there at the end. What
comes out must parse, and hold what was in the file with just these values changed; else nothing is
written. `configuration.py` reads what this writes.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quickwins_codemod import writing
from quickwins_codemod.configfile import Reader, table_of
from quickwins_codemod.options import options_of
from quickwins_codemod.settings import ConfigError, Rule, Settings, short
from quickwins_codemod.tomltext import Statement, parse, statements

_FILE = "pyproject.toml"
_TABLE = ("tool", "quickwins")
_BOM = "\ufeff"

#: For each rule the options that it is to have; the rules of no options may be missing.
Options = Mapping[str, Mapping[str, Any]]


def chosen(select: Sequence[str], settings: Settings, rules: Sequence[Rule]) -> Options:
    """Return the options that the selected rules need, to run as they ran with these settings.

    Those are the ones that differ from what is built in, and those that a flag set.
    """
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        if rule.rule not in select:
            continue
        values = settings.rules[rule.rule]
        for option in options_of(rule.options_type):
            value = getattr(values, option.name)
            flagged = settings.origin(f"{rule.rule}.{option.key}").startswith("--")
            if value is not None and (value != option.default or flagged):
                found.setdefault(rule.rule, {})[option.key] = value
    return found


def lines(select: Sequence[str], options: Options) -> str:
    """Return the lines as they stand in a file that had none."""
    parts = [f"[{'.'.join(_TABLE)}]\n{_statement('select', list(select))}"]
    parts += [
        f"[{'.'.join((*_TABLE, rule))}]\n"
        + "".join(_statement(key, value) for key, value in values.items())
        for rule, values in options.items()
        if values
    ]
    return "\n".join(parts)


def target(root: Path) -> Path:
    """Return the file that `configuration.load` reads for a root, else the one it would read.

    That is the nearest with a `[tool.quickwins]`, else the nearest, else one beside the root's files;
    up to the top level of the repository. Raises ConfigError.
    """
    there = []
    for folder in (root, *root.parents):
        path = folder / _FILE
        if path.is_file():
            if table_of(path) is not None:
                return path
            there.append(path)
        if os.path.lexists(folder / ".git"):
            break
    else:
        there = [path for path in there if path.parent == root]  # in no repository
    return there[0] if there else root / _FILE


def check(path: Path) -> None:
    """Raise ConfigError where a file could not take rules and options."""
    edited(_read(path), ["metrics"], {}, short(path))


def put(path: Path, select: Sequence[str], options: Options, rules: Sequence[Rule]) -> str:
    """Write what is recommended, if anything is, and say in one line what was done."""
    if not select:
        return f"nothing is recommended, so {short(path)} stays as it is"
    was_there = path.exists()
    if not write(path, select, options):
        return f"{short(path)} has what is recommended already"
    what = ["select", *(f"{rule}.{key}" for rule, values in options.items() for key in values)]
    settings = Reader(path, rules).settings(table_of(path) or {})
    ignored = [name for name in select if not settings.wants_rule(name)]
    left_out = f"; its ignore still leaves out {', '.join(ignored)}" if ignored else ""
    verb = "now has" if was_there else "was made, with"
    return f"{short(path)} {verb} {' and '.join(what)} as recommended{left_out}"


def write(path: Path, select: Sequence[str], options: Options) -> bool:
    """Put rules and options into a file, atomically; say whether it had to be changed.

    Raises ConfigError, with the lines to put in by hand where the file cannot take them.
    """
    before = _read(path)
    after = edited(before, select, options, short(path))
    if after == before:
        return False
    try:
        writing.write_atomically(path, after.encode("utf-8"), path.parent)
    except OSError as error:
        raise ConfigError(f"{short(path)}: cannot be written: {error.strerror}") from None
    except writing.WriteError as error:
        raise ConfigError(str(error)) from None
    return True


def _read(path: Path) -> str:
    try:
        before = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ConfigError(f"{short(path)}: cannot be read: {error.strerror}") from None
    if before:
        table_of(path)  # refuses what is not TOML, in its own words
    return before.decode("utf-8")


def edited(text: str, select: Sequence[str], options: Options, name: str = _FILE) -> str:
    """Return the text of a file with rules and options put in. Raises ConfigError."""
    mark = _BOM if text.startswith(_BOM) else ""
    wanted = {_TABLE: {"select": list(select)}}
    wanted |= {(*_TABLE, rule): dict(values) for rule, values in options.items() if values}
    made = _Edit(text.removeprefix(mark)).put(wanted)
    try:
        right = parse(made.text) == made.expected
    except ValueError:
        right = False
    if not right:
        by_hand = "; ".join(lines(select, options).strip().splitlines()).replace("; ; ", "; ")
        raise ConfigError(
            f"{name}: its {'.'.join(_TABLE)} is written in a way that this cannot edit; put in by"
            f" hand: {by_hand}"
        )
    return mark + made.text


class _Edit:
    """An edit under way: the text so far, and what it must mean."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.expected = copy.deepcopy(parse(text))
        self.newline = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"

    def put(self, wanted: Mapping[tuple[str, ...], Mapping[str, Any]]) -> _Edit:
        for table, values in wanted.items():
            written = self._expect(table, values)
            for key, value in reversed(values.items()):  # what is added comes first in its table
                self._set(written, key, value)
        return self

    def _expect(self, table: Sequence[str], values: Mapping[str, Any]) -> tuple[str, ...]:
        """Note what is to be in a table; return its names as the file spells them."""
        inner, written = self.expected, []
        for name in table:
            spelled = _spelled(name, inner)
            inner = inner.setdefault(spelled, {})
            written.append(spelled)
        for key, value in values.items():
            inner[_spelled(key, inner)] = value
        return tuple(written)

    def _set(self, table: tuple[str, ...], key: str, value: Any) -> None:
        parts = statements(self.text)
        headers = [n for n, part in enumerate(parts) if part.header and part.table == table]
        if not headers:
            end = "" if not self.text or self.text.endswith("\n") else self.newline
            gap = self.newline if self.text.strip() else ""
            header = f"[{'.'.join(table)}]{self.newline}"
            self.text += f"{end}{gap}{header}{_statement(key, value, self.newline)}"
            return
        first = headers[0] + 1
        last = next((n for n in range(first, len(parts)) if parts[n].header), len(parts))
        texts = [part.text for part in parts]
        for place in range(first, last):
            found = parts[place].found
            if len(found) == 1 and _spelled(key, found) in found:
                if found[_spelled(key, found)] == value:
                    return
                texts[place] = _replaced(parts[place], value, self.newline)
                break
        else:
            if not texts[first - 1].endswith("\n"):
                texts[first - 1] += self.newline
            texts.insert(first, _statement(key, value, self.newline))
        self.text = "".join(texts)


def _spelled(name: str, table: Mapping[str, Any]) -> str:
    """Return a name as a table has it, with dashes or underscores."""
    return next((key for key in table if key.replace("_", "-") == name), name)


def _replaced(statement: Statement, value: Any, newline: str) -> str:
    """Give a statement another value; its indentation, and a comment at its end, stay."""
    text = statement.text
    body = text.rstrip("\r\n")
    last = body.rfind("\n") + 1
    comment = ""
    for place in (n for n in range(last, len(body)) if body[n] == "#"):
        try:
            whole = parse(body[:place]) == statement.found
        except ValueError:
            continue
        if whole:
            comment = body[len(body[:place].rstrip(" \t")) :]
            break
    # What stands before the "=" is the key as it was spelled.
    head = body[: _equals(body)]
    return f"{head}= {_value(value)}{comment}{text[len(body) :]}"


def _equals(text: str) -> int:
    """Return where the key ends; in a quoted key a sign of equality may stand, too."""
    for place in (n for n, letter in enumerate(text) if letter == "="):
        try:
            parse(f"{text[:place]}= 0")
        except ValueError:
            continue
        return place
    return text.index("=")


def _statement(key: str, value: Any, newline: str = "\n") -> str:
    return f"{key} = {_value(value)}{newline}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
