"""The configuration of a run: built-in values, `[tool.quickwins]`, then the command line.

The command line replaces what the file says, with one exception that protects users: `--ignore`
and `--exclude` add to the file's lists, so that leaving out one more folder never takes back what
the repository already left out. What cannot be used is refused in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    unique,
)

_POSITION = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")
_RUNTIMES = ("bundled", "installed")


@dataclass(frozen=True)
class Flags:
    """What the command line says. None and empty mean that it says nothing.

    options: for each rule, the fields of its Options that a flag set.
    """

    config: Path | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load(root: Path, rules: Sequence[Rule], flags: Flags | None = None) -> Settings:
    """Return what is in force under a root, or raise ConfigError.

    The file is the one `--config` names, or the nearest `pyproject.toml` with a
    `[tool.quickwins]` table, from the root up to the top level of its git repository.
    """
    flags = flags or Flags()
    settings = _read(root, rules, flags.config)
    select = names_of(flags.select, rules, "--select")
    ignore = names_of(flags.ignore, rules, "--ignore", file_codes=True)
    check_patterns(flags.exclude, "--exclude")
    origins = dict(settings.origins)
    origins.update({"select": "--select"} if select else {})
    for key, given in (("ignore", ignore), ("exclude", flags.exclude)):
        if given:
            before = f"{origins[key]} and " if key in origins else ""
            origins[key] = f"{before}--{key}"
    # Asking for a rule by name beats a file that ignores it: nobody types it to get nothing.
    kept = tuple(name for name in settings.ignore if not _covers(name, select, rules))
    options = dict(settings.rules)
    for rule, values in flags.options.items():
        try:
            options[rule] = replace(options[rule], **values)
        except ValueError as error:  # values that do not go together
            raise ConfigError(f"the options of {rule}: {error}") from None
        for name in values:
            key = name.replace("_", "-")
            origins[f"{rule}.{key}"] = f"--{key}"
    return replace(
        settings,
        select=select or settings.select,
        ignore=unique(kept + ignore),
        exclude=unique(settings.exclude + flags.exclude),
        rules=options,
        origins=origins,
    )


def _read(root: Path, rules: Sequence[Rule], config: Path | None) -> Settings:
    """Return the built-in values with the configuration file's on top."""
    if config is not None:
        table = _table(config)
        if table is None:
            raise ConfigError(f"{short(config)}: has no [tool.quickwins] table")
        return _Reader(config, rules).settings(table)
    for folder in (root, *root.parents):
        path = folder / "pyproject.toml"
        table = _table(path) if _is_file(path) else None
        if table is not None:
            return _Reader(path, rules).settings(table)
        if (folder / ".git").exists():
            break
    return Settings(rules={rule.rule: rule.options_type() for rule in rules})


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above the root that may not be looked into
        return False


def _covers(name: str, selected: Sequence[str], rules: Sequence[Rule]) -> bool:
    """Tell whether ignoring `name` would silence something that was selected."""
    codes = next(({c.code for c in rule.codes} for rule in rules if rule.rule == name), set())
    return name in selected or any(code in selected for code in codes)


def _table(path: Path) -> dict[str, Any] | None:
    """Return the file's `[tool.quickwins]`, None where it has none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{short(path)}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{short(path)}: is not UTF-8, so it is not TOML") from None
    try:
        document = _toml(text)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "nested too deeply"
        found = _POSITION.search(said)
        what = _POSITION.sub("", said)
        if found and found[1]:
            raise ConfigError(f"{short(path)}:{found[1]}:{found[2]}: not TOML: {what}") from None
        last = text.count("\n") + 1
        raise ConfigError(f"{short(path)}:{last}: not TOML: {what} (at its end)") from None
    tool = document.get("tool", {})
    if not isinstance(tool, dict) or not isinstance(tool.get("quickwins", {}), dict):
        raise ConfigError(f"{short(path)}: tool.quickwins: must be a table")
    return tool.get("quickwins")


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib

    return tomllib.loads(text)


class _Reader:
    """Turns the table of one file into Settings."""

    def __init__(self, path: Path, rules: Sequence[Rule]) -> None:
        self.path, self.rules = path, rules
        self.keys: dict[str, Callable[[str, Any], Any]] = {
            "select": lambda key, value: names_of(self._strings(key, value), rules, self._at(key)),
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
            key = self._once(written, written.replace("_", "-"), seen)
            if key in named:
                given = self._options(named[key], written, value)
                try:
                    options[key] = named[key].options_type(**given)
                except ValueError as error:  # values that do not go together
                    raise self._error(written, str(error)) from None
                origins.update((f"{key}.{n.replace('_', '-')}", short(self.path)) for n in given)
            elif key in self.keys:
                values[key.replace("-", "_")] = self.keys[key](written, value)
                origins[key] = short(self.path)
            else:
                raise self._error(written, f"unknown key{suggest(key, [*self.keys, *named])}")
        return Settings(**values, rules=options, origins=origins)

    def _options(self, rule: Rule, table: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(table, "must be a table of that rule's options")
        known = {option.key: option for option in options_of(rule.options_type)}
        given: dict[str, Any] = {}
        seen: set[str] = set()
        for written, item in value.items():
            where = f"{table}.{written}"
            key = self._once(where, written.replace("_", "-"), seen)
            if key not in known:
                raise self._error(where, f"unknown option{suggest(key, known)}")
            try:
                given[known[key].name] = known[key].check(item)
            except OptionError as error:
                raise self._error(where, str(error)) from None
        return given

    def _ignored(self, key: str, value: Any) -> tuple[str, ...]:
        return names_of(self._strings(key, value), self.rules, self._at(key), file_codes=True)

    def _patterns(self, key: str, value: Any) -> tuple[str, ...]:
        patterns = self._strings(key, value)
        check_patterns(patterns, self._at(key))
        return patterns

    def _per_file(self, key: str, value: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            raise self._error(key, "must be a table of patterns and lists of rules or codes")
        check_patterns(value, self._at(key))
        return {pattern: self._ignored(f'{key}."{pattern}"', v) for pattern, v in value.items()}

    def _runtime(self, key: str, value: Any) -> str:
        if value not in _RUNTIMES:
            hint = suggest(value, _RUNTIMES) if isinstance(value, str) else ""
            raise self._error(key, f'must be "bundled" or "installed"{hint}')
        return str(value)

    def _strings(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._error(key, "must be a list of strings")
        return tuple(value)

    def _once(self, written: str, key: str, seen: set[str]) -> str:
        if key in seen:
            raise self._error(written, "is given twice, with a dash and with an underscore")
        seen.add(key)
        return key

    def _at(self, key: str) -> str:
        return f"{short(self.path)}: tool.quickwins.{key}"

    def _error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self._at(key)}: {what}")
