"""One configuration file: its `[tool.quickwins]`, refused in one line where it means nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quickwins_codemod.options import OptionError, options_of
from quickwins_codemod.settings import (
    ConfigError,
    Rule,
    Settings,
    check_patterns,
    names_of,
    short,
    suggest,
)
from quickwins_codemod.tomltext import line_of, parse

_POSITION = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_TABLE = ("tool", "quickwins")
_RUNTIMES = ("bundled", "installed")


def table_of(path: Path) -> dict[str, Any] | None:
    """Return the file's `[tool.quickwins]`, None where it has none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{short(path)}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{short(path)}: is not UTF-8, so it is not TOML") from None
    try:
        document = parse(text)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "nested too deeply"
        found = _POSITION.search(said)
        what = _POSITION.sub("", said)
        if found and found[1]:
            raise ConfigError(f"{short(path)}:{found[1]}:{found[2]}: not TOML: {what}") from None
        last = text.count("\n") + 1
        raise ConfigError(f"{short(path)}:{last}: not TOML: {what} (at its end)") from None
    tool = document.get("tool", {})
    if not isinstance(tool, dict):
        raise ConfigError(f"{_Place(path, 'tool')}: must be a table")
    table = tool.get("quickwins")
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{_Place(path, *_TABLE)}: must be a table")
    return table


class _Place:
    """Where a key stands, as a message opens; its line is looked for when a message is made."""

    def __init__(self, path: Path, *names: str) -> None:
        self.path, self.names = path, names

    def __str__(self) -> str:
        try:
            line = line_of(self.path.read_bytes().decode("utf-8-sig"), self.names)
        except (OSError, ValueError):  # it has changed since it was read
            line = None
        shown = [name if _BARE.fullmatch(name) else f'"{name}"' for name in self.names]
        return f"{short(self.path)}:{f'{line}:' if line else ''} {'.'.join(shown)}"


#: A key by its names, from `[tool.quickwins]` on.
Names = tuple[str, ...]


class Reader:
    """Turns the table of one file into Settings."""

    def __init__(self, path: Path, rules: Sequence[Rule]) -> None:
        self.path, self.rules = path, rules
        self.keys: dict[str, Callable[[Names, Any], Any]] = {
            "select": self._selected,
            "ignore": self._ignored,
            "exclude": self._patterns,
            "per-file-ignores": self._per_file,
            "runtime": self._runtime,
        }

    def settings(self, table: dict[str, Any]) -> Settings:
        named = {rule.rule: rule for rule in self.rules}
        values: dict[str, Any] = {}
        options = {name: rule.options_type() for name, rule in named.items()}
        origins: dict[str, str] = {}
        seen: set[str] = set()
        for written, value in table.items():
            key = self._once((written,), written.replace("_", "-"), seen)
            if key in named:
                given = self._options(named[key], written, value)
                try:
                    options[key] = named[key].options_type(**given)
                except ValueError as error:  # values that do not go together
                    raise self._error((written,), str(error)) from None
                origins.update((f"{key}.{n.replace('_', '-')}", short(self.path)) for n in given)
            elif key in self.keys:
                values[key.replace("-", "_")] = self.keys[key]((written,), value)
                origins[key] = short(self.path)
            else:
                raise self._error((written,), f"unknown key{suggest(key, [*self.keys, *named])}")
        return Settings(**values, rules=options, origins=origins)

    def _options(self, rule: Rule, table: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error((table,), "must be a table of that rule's options")
        known = {option.key: option for option in options_of(rule.options_type)}
        given: dict[str, Any] = {}
        seen: set[str] = set()
        for written, item in value.items():
            key = self._once((table, written), written.replace("_", "-"), seen)
            if key not in known:
                raise self._error((table, written), f"unknown option{suggest(key, known)}")
            try:
                given[known[key].name] = known[key].check(item)
            except OptionError as error:
                raise self._error((table, written), str(error)) from None
        return given

    def _selected(self, names: Names, value: Any) -> tuple[str, ...]:
        return names_of(self._strings(names, value), self.rules, self._at(names))

    def _ignored(self, names: Names, value: Any) -> tuple[str, ...]:
        listed = self._strings(names, value)
        return names_of(listed, self.rules, self._at(names), file_codes=True)

    def _patterns(self, names: Names, value: Any) -> tuple[str, ...]:
        patterns = self._strings(names, value)
        check_patterns(patterns, self._at(names))
        return patterns

    def _per_file(self, names: Names, value: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            raise self._error(names, "must be a table of patterns and lists of rules or codes")
        found = {}
        for pattern, listed in value.items():
            check_patterns([pattern], self._at((*names, pattern)))
            found[pattern] = self._ignored((*names, pattern), listed)
        return found

    def _runtime(self, names: Names, value: Any) -> str:
        if value not in _RUNTIMES:
            hint = suggest(value, _RUNTIMES) if isinstance(value, str) else ""
            raise self._error(names, f'must be "bundled" or "installed"{hint}')
        return str(value)

    def _strings(self, names: Names, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._error(names, "must be a list of strings")
        return tuple(value)

    def _once(self, names: Names, key: str, seen: set[str]) -> str:
        if key in seen:
            raise self._error(names, "is given twice, with a dash and with an underscore")
        seen.add(key)
        return key

    def _at(self, names: Names) -> _Place:
        return _Place(self.path, *_TABLE, *names)

    def _error(self, names: Names, what: str) -> ConfigError:
        return ConfigError(f"{self._at(names)}: {what}")
