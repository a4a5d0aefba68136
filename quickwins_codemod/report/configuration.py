"""The configuration in force, one value a line, each with where it comes from."""

from __future__ import annotations

import json as stdlib_json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quickwins_codemod.options import options_of
from quickwins_codemod.settings import Rule, Settings

VERSION = 1
#: A longer value moves only its own origin to the right, not that of all others.
_COLUMN = 40


@dataclass(frozen=True)
class Entry:
    """One value, as JSON spells it, under the key that the configuration file has for it.

    empty: what a person is told where there is no value.
    """

    key: str
    value: Any
    origin: str
    empty: str = "none"

    @property
    def shown(self) -> str:
        if self.value in (None, [], {}):
            return self.empty
        return stdlib_json.dumps(self.value, ensure_ascii=False)


def entries(settings: Settings, rules: Sequence[Rule]) -> list[Entry]:
    """Return every value in force, in the order of the README's example.

    An option that is unset is None. Each pattern of per-file-ignores has an entry of its own.
    """

    def entry(key: str, value: Any, empty: str = "none", owner: str | None = None) -> Entry:
        return Entry(key, value, settings.origins.get(owner or key, "default"), empty)

    # Patterns of a file above the root are kept apart from those that count from the root.
    outer = [p for _, patterns in settings.outer_excludes for p in patterns]
    above = [pattern for pattern in outer if pattern not in settings.exclude]
    found = [
        entry("select", list(settings.select), empty="all"),
        entry("ignore", list(settings.ignore)),
        entry("exclude", [*above, *settings.exclude]),
        entry("runtime", settings.runtime),
    ]
    per_file = "per-file-ignores"
    found += [
        entry(f"{per_file}.{stdlib_json.dumps(pattern, ensure_ascii=False)}", list(names),
              owner=per_file)
        for pattern, names in settings.per_file_ignores.items()
    ] or [entry(per_file, {})]  # fmt: skip
    for rule in rules:
        options = settings.rules[rule.rule]
        found += [
            entry(f"{rule.rule}.{option.key}", getattr(options, option.name), empty="unset")
            for option in options_of(rule.options_type)
        ]
    return found


def render_text(found: Sequence[Entry]) -> str:
    """Return the entries in three columns: key, value, origin."""
    keys = max(len(entry.key) for entry in found)
    values = max((len(e.shown) for e in found if len(e.shown) <= _COLUMN), default=0)
    return "".join(f"{e.key:{keys}}  {e.shown:{values}}  {e.origin}\n" for e in found)


def render_json(found: Sequence[Entry]) -> str:
    """Return the entries as one object: `version`, and `values` with key, value and origin."""
    values = [{"key": e.key, "value": e.value, "origin": e.origin} for e in found]
    return stdlib_json.dumps({"version": VERSION, "values": values}, indent=2) + "\n"
