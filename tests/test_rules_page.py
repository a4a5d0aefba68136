"""docs/rules.md is what the docstrings say today."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from quickwins_codemod import transform

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def make_rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_rules", ROOT / "docs" / "make_rules.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(make_rules: ModuleType) -> None:
    written = make_rules.PAGE.read_text(encoding="utf-8")

    assert written == make_rules.text(), "out of date; run python docs/make_rules.py"


def test_each_code_has_its_section_and_a_line_of_the_table_that_leads_there(
    make_rules: ModuleType,
) -> None:
    text = make_rules.text()
    for rule in transform.all_transforms():
        assert text.count(f"\n## {rule.rule}\n") == 1
        for code in rule.codes:
            anchor = code.code.lower()
            assert text.count(f'<a id="{anchor}"></a>\n\n### {code.code} {code.title}\n') == 1
            assert f"| [{code.code}](#{anchor}) | `{rule.rule}` | {code.title} |\n" in text


def test_changes_are_shown_as_changes_and_nothing_else_is(make_rules: ModuleType) -> None:
    text = make_rules.text()
    shown = re.findall(r"^```diff\n(.*?)^```$", text, re.M | re.S)

    assert text.count("```") == 2 * len(shown) > 100
    for block in shown:
        kept = [line for line in block.split("\n") if line]
        assert all(line[0] in "+- " for line in kept), block


def test_the_readme_leads_there() -> None:
    assert "](docs/rules.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
