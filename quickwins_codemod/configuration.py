"""The configuration of a run: built-in values, `[tool.quickwins]`, then the command line.

The command line replaces what the file says, with one exception that protects users: `--ignore`
and `--exclude` add to the file's lists, so that leaving out one more folder never takes back what
the repository already left out. What cannot be used is refused in one line.

Patterns count from where they were written: those of a file from its folder, those of a flag from
the root of the run and from the current directory, whichever matches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quickwins_codemod.configfile import Reader, table_of
from quickwins_codemod.settings import (
    ConfigError,
    Rule,
    Settings,
    check_patterns,
    names_of,
    short,
    unique,
)


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
    if len(kept) < len(settings.ignore):
        origins["ignore"] += " and --select"
    options = dict(settings.rules)
    for rule, values in flags.options.items():
        try:
            options[rule] = replace(options[rule], **values)
        except ValueError as error:  # values that do not go together
            raise ConfigError(f"the options of {rule}: {error}") from None
        for name in values:
            key = name.replace("_", "-")
            origins[f"{rule}.{key}"] = f"--{key}"
    outer = settings.outer_excludes
    if flags.exclude and (above := _base(Path.cwd(), root)):
        outer += ((above, flags.exclude),)
    return replace(
        settings,
        outer_excludes=outer,
        select=select or settings.select,
        ignore=unique(kept + ignore),
        exclude=unique(settings.exclude + flags.exclude),
        rules=options,
        origins=origins,
    )


def _read(root: Path, rules: Sequence[Rule], config: Path | None) -> Settings:
    """Return the built-in values with the configuration file's on top."""
    if config is not None:
        table = table_of(config)
        if table is None:
            raise ConfigError(f"{short(config)}: has no [tool.quickwins] table")
        return _based(Reader(config, rules).settings(table), config.parent, root)
    for folder in (root, *root.parents):
        path = folder / "pyproject.toml"
        table = table_of(path) if _is_file(path) else None
        if table is not None:
            return _based(Reader(path, rules).settings(table), folder, root)
        if os.path.lexists(folder / ".git"):
            break
    return Settings(rules={rule.rule: rule.options_type() for rule in rules})


def _based(settings: Settings, folder: Path, root: Path) -> Settings:
    """Let a file's patterns count from its folder, where the root lies below that."""
    base = _base(folder, root)
    if not base:
        return settings
    outer = ((base, settings.exclude),) if settings.exclude else ()
    return replace(settings, base=base, exclude=(), outer_excludes=outer)


def _base(folder: Path, root: Path) -> str:
    """Return what leads from a folder down to the root ("sub/"), empty where nothing does."""
    try:
        way = root.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return ""
    return "" if way == "." else f"{way}/"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above the root that may not be looked into
        return False


def _covers(name: str, selected: Sequence[str], rules: Sequence[Rule]) -> bool:
    """Tell whether ignoring `name` would silence something that was selected."""
    codes = next(({c.code for c in rule.codes} for rule in rules if rule.rule == name), set())
    return name in selected or any(code in selected for code in codes)
