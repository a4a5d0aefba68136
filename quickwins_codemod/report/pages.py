"""The pages that `quickwins explain` prints, made from the docstrings of the rules and of verdict.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quickwins_codemod import verdict
from quickwins_codemod.settings import FILE_RULE, ConfigError, suggest
from quickwins_codemod.transform import Code, Transform, codes_of

_WHY = re.compile(r"^Why: (.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def page(name: str, rules: Sequence[Transform]) -> str:
    """Return the page of a rule or a code, or raise ConfigError for an unknown one."""
    plain = name.strip().lower().replace("_", "-")
    opening, files = codes_of(verdict.__doc__ or "", FILE_RULE)
    for rule, text, codes in [
        (FILE_RULE, opening, files),
        *((r.rule, r.page, r.codes) for r in rules),
    ]:
        if plain == rule:
            return f"{rule}\n\n{text}\n\n{_table(codes)}"
        for code in codes:
            if plain == code.code.lower():
                return f"{code.code} ({code.rule}): {code.title}\n\n{code.page}\n"
    known = [FILE_RULE, *(r.rule for r in rules)]
    known += [code.code for code in (*files, *(c for r in rules for c in r.codes))]
    raise ConfigError(f'explain: unknown rule or code "{name}"{suggest(name, known)}')


def why(code: str, rules: Sequence[Transform]) -> str:
    """Return what the page of a rule's code says under `Why:`, on one line; empty without one."""
    found = next((c for rule in rules for c in rule.codes if c.code == code), None)
    match = _WHY.search(found.page) if found is not None else None
    return " ".join(match[1].split()) if match else ""


def table(rules: Sequence[Transform]) -> str:
    """Return the table of all codes, rule by rule."""
    _, files = codes_of(verdict.__doc__ or "", FILE_RULE)
    blocks = [f"{FILE_RULE}: what is said of a file, whatever the rule\n{_table(files)}"]
    blocks += [f"{rule.rule}: {rule.title}\n{_table(rule.codes)}" for rule in rules]
    return "\n".join(blocks) + "\n`quickwins explain CODE` shows the page of one.\n"


def by_code(rules: Sequence[Transform]) -> dict[str, Code]:
    """Return each code, of the rules and of files, with its page."""
    _, files = codes_of(verdict.__doc__ or "", FILE_RULE)
    return {code.code: code for codes in (files, *(r.codes for r in rules)) for code in codes}


def _table(codes: Sequence[Code]) -> str:
    return "".join(f"  {code.code}  {code.title}\n" for code in codes)
