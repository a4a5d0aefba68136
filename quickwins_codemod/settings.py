"""What is in force for one run, and the names that rules and codes go by.

`configuration.py` reads it from `[tool.quickwins]` and the command line.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

#: What the file itself gives rise to (QW0xx); these verdicts belong to no rule.
FILE_RULE = "file"
#: The QW0xx that can be ignored: the others say that a file could not be processed, and a file is
#: left out of a run by `exclude`, in the open.
IGNORABLE_FILE_CODES = frozenset({"QW004", "QW010"})


class ConfigError(Exception):
    """A configuration or flag that cannot be used; its text is one line for the user."""


class _Code(Protocol):
    @property
    def code(self) -> str: ...


class Rule(Protocol):
    """What the configuration needs to know of a quick win (a Transform has it)."""

    @property
    def rule(self) -> str: ...
    @property
    def options_type(self) -> type: ...
    @property
    def codes(self) -> Sequence[_Code]: ...


@dataclass(frozen=True)
class Settings:
    """What is in force for one run.

    select, ignore: rule names or codes; an empty select means every rule.
    exclude: patterns in .gitignore's syntax, relative to the root.
    per_file_ignores: such a pattern, and the rules or codes ignored in the files it matches.
    runtime: "bundled" copies quickwins_runtime/ into the repository, "installed" imports
        quickwins_codemod.runtime from the installed package.
    rules: for each rule name, an instance of that rule's Options dataclass.
    base: leads from the folder of a configuration file above the root to the root ("sub/"); the
        patterns of per_file_ignores count from that folder.
    outer_excludes: such a base, and patterns that leave out files by their path from there.
    origins: for each key ("select", "onecycle.pct-start") that is not built in, who set it.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runtime: str = "bundled"
    rules: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    outer_excludes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def wants_rule(self, rule: str, codes: Iterable[str] = ()) -> bool:
        """Tell whether a rule is to run: it is selected, or one of its codes is."""
        if rule in self.ignore:
            return False
        return not self.select or rule in self.select or any(c in self.select for c in codes)

    def wants(self, rule: str, code: str) -> bool:
        """Tell whether a site with this code is to be rewritten or reported."""
        if code in self.ignore or rule in self.ignore:
            return False
        return rule == FILE_RULE or not self.select or rule in self.select or code in self.select

    def for_file(self, path: str) -> Settings:
        """Return the settings for one file, given relative to the root with forward slashes."""
        extra = tuple(
            name
            for pattern, names in self.per_file_ignores.items()
            if _spec(pattern).match_file(self.base + path)
            for name in names
            if name not in self.ignore
        )
        return replace(self, ignore=self.ignore + extra) if extra else self

    def leaves_out(self, path: str) -> bool:
        """Tell whether patterns that count from a folder above the root exclude a file."""
        return any(_spec(*lines).match_file(base + path) for base, lines in self.outer_excludes)

    def origin(self, key: str) -> str:
        """Say where the value of a key comes from."""
        return self.origins.get(key, "built in")


@lru_cache(maxsize=256)
def _spec(*patterns: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)


def names_of(
    names: Iterable[str], rules: Sequence[Rule], where: object, file_codes: bool = False
) -> tuple[str, ...]:
    """Return rule names and codes as the engine spells them, or raise ConfigError.

    where: what a message opens with, as str() gives it. file_codes: whether the codes of a file are taken too.
    """
    known = [rule.rule for rule in rules] + [code.code for rule in rules for code in rule.codes]
    known += sorted(IGNORABLE_FILE_CODES) if file_codes else []
    spelled = {name.lower(): name for name in known}
    found = []
    for name in names:
        plain = name.strip().lower().replace("_", "-")
        if plain not in spelled:
            raise ConfigError(f"{where}: {_unknown_name(name.strip(), known)}")
        found.append(spelled[plain])
    return unique(found)


def check_patterns(patterns: Iterable[str], where: object) -> None:
    """Raise ConfigError for a pattern that .gitignore's syntax does not know."""
    for pattern in patterns:
        try:
            _spec(pattern)
        except (ValueError, re.error):
            raise ConfigError(f'{where}: "{pattern}" is no pattern of a .gitignore') from None


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` with the nearest of the known words, or an empty string."""
    spelled = {name.lower().replace("_", "-"): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("_", "-"), spelled, n=1, cutoff=0.5)
    return f'; did you mean "{spelled[near[0]]}"?' if near else ""


def short(path: Path) -> str:
    """Return a path as a user would type it from here."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return min(str(path), relative, key=len) if relative.startswith("..") else relative


def _unknown_name(name: str, known: Sequence[str]) -> str:
    if name.upper().startswith("QW0") and len(name) == 5:
        return (
            f'"{name}" is about whole files and cannot be chosen here; leave a file out by exclude'
        )
    return f'unknown rule or code "{name}"{suggest(name, known)}'


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in their order, each once."""
    return tuple(dict.fromkeys(names))
