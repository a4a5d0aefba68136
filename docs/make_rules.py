"""Write docs/rules.md: the page of each rule and each code, as `quickwins explain` prints them.

usage: python docs/make_rules.py

The pages are the docstrings of `transforms/*.py` and of `quickwins_codemod/verdict.py`; what is
indented there is a block of code in Markdown as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path

from quickwins_codemod import transform, verdict
from quickwins_codemod.settings import FILE_RULE

PAGE = Path(__file__).with_name("rules.md")
_HEADING = re.compile(
    r"^(What it does|Why|Example|What to do|Which rows are relevant|When it refuses|Options|By hand"
    r"|Sources):",
    re.MULTILINE,
)
#: Indented lines, with empty ones between them.
_BLOCK = re.compile(r"^    .*\n?(?:(?:[ ]*\n)*    .*\n?)*", re.MULTILINE)


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")
    print(f"{PAGE} written")


def text() -> str:
    """The whole file: a table of all codes, then a section for each rule."""
    page, codes = transform.codes_of(verdict.__doc__ or "", FILE_RULE)
    sections = [(FILE_RULE, page, codes)]
    sections += [(rule.rule, rule.page, rule.codes) for rule in transform.all_transforms()]
    parts = [
        "# Rules and codes",
        "Made by `docs/make_rules.py` from what `quickwins explain CODE` prints; not written by hand.",
        "| code | rule | |\n|---|---|---|\n" + "\n".join(
            f"| [{code.code}](#{code.code.lower()}) | `{rule}` | {_cell(code.title)} |"
            for rule, _, codes in sections for code in codes
        ),
    ]
    for rule, page, codes in sections:
        parts += [f"## {rule}", _marked(page)]
        for code in codes:
            # The anchor is named after the code alone, so that a link outlives a change of the title.
            parts += [f'<a id="{code.code.lower()}"></a>', f"### {code.code} {code.title}"]
            parts.append(_marked(code.page))
    return "\n\n".join(parts) + "\n"


def _marked(page: str) -> str:
    """A page as Markdown: its headings stand out, and a block that shows a change has its colours."""
    marked = _HEADING.sub(r"**\1:**", page.strip("\n"))
    return _BLOCK.sub(_coloured, marked)


def _coloured(block: re.Match[str]) -> str:
    lines = [line[4:] for line in block[0].rstrip("\n").split("\n")]
    if not any(line.startswith(("+", "-")) and not line.startswith("--") for line in lines):
        return block[0]
    return "\n".join(["```diff", *lines, "```"]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
