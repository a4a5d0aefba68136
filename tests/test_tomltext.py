"""The line of a key in a TOML file, however the file spells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickwins_codemod import configuration
from quickwins_codemod.settings import ConfigError
from quickwins_codemod.tomltext import line_of, statements
from quickwins_codemod.transform import all_transforms

TEXT = '''\
# tool.quickwins.select = "a comment"
title = "select"

[tool.other]
select = ["x"]
text = """
[tool.quickwins]
ignore = 1
"""

  [ tool . "quickwins" ]  # spaced
select = [
    "onecycle",  # ]
    "amp",
]
"ex\\u0063lude" = []
'per-file-ignores' = { "a.py" = ["amp"], "b c.py" = [] }
onecycle.pct-start = 0.1

[[tool.quickwins.many]]
k = 1
[[tool.quickwins.many]]
[tool.quickwins.hard-negatives]
top-share = 0.5
'''


@pytest.mark.parametrize(("key", "line"), [
    ("", 11), ("select", 12), ("exclude", 16), ("per-file-ignores", 17),
    ("per-file-ignores/a.py", 17), ("per-file-ignores/b c.py", 17), ("onecycle", 18),
    ("onecycle/pct-start", 18), ("many", 20), ("hard-negatives", 23),
    ("hard-negatives/top-share", 24), ("ignore", None), ("onecycle/max-lr", None),
    ("select/onecycle", None),
])  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_of_a_key(key: str, line: int | None, newline: str) -> None:
    text = TEXT.replace("\n", newline)
    names = ["tool", "quickwins", *(key.split("/") if key else [])]
    assert line_of(text, names) == line
    assert "".join(statement.text for statement in statements(text)) == text


@pytest.mark.parametrize(("text", "line"), [
    ("tool = {quickwins = {selct = 1}}\n", 1),
    ("a = 1\n\ntool.quickwins.selct = 1\n", 3),
    ("[tool]\n\n\nquickwins.selct = []\n", 4),
    ("\ufeff[tool.quickwins]\nselct = 1", 2),
    ("[tool]\n[tool.quickwins]\n[tool.quickwins.selct]\n", 3),
])  # fmt: skip
def test_a_message_names_it(
    text: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        configuration.load(tmp_path, all_transforms())
    assert str(caught.value) == (
        f'pyproject.toml:{line}: tool.quickwins.selct: unknown key; did you mean "select"?'
    )


def test_a_table_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool]\n# here\nquickwins = 3\n")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml:3: tool\.quickwins: must be a table$"):
        configuration.load(tmp_path, all_transforms())
