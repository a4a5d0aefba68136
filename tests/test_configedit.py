"""Writing a recommendation into `pyproject.toml`: what is ours is set, all else keeps its bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickwins_codemod import configedit, configuration
from quickwins_codemod.configuration import Flags
from quickwins_codemod.settings import ConfigError
from quickwins_codemod.tomltext import parse
from quickwins_codemod.transform import all_transforms

RULES = all_transforms()
SELECT = ("onecycle", "metrics")
OPTIONS = {"onecycle": {"max-lr-factor": 2.0}}
OURS = '[tool.quickwins]\nselect = ["onecycle", "metrics"]\n'


def edited(text: str, options: configedit.Options = {}) -> str:
    return configedit.edited(text, SELECT, options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS),
        ("[project]\nname = 'x'\n", "[project]\nname = 'x'\n\n" + OURS),
        ("[project]\nname = 'x'", "[project]\nname = 'x'\n\n" + OURS),
        ("[tool.ruff]\r\nx = 1\r\n",
         "[tool.ruff]\r\nx = 1\r\n\r\n" + OURS.replace("\n", "\r\n")),
        ("# only a comment", "# only a comment\n\n" + OURS),
        ("[tool.quickwins]\nselect = ['amp']\n", OURS),
        ("[tool.quickwins]", OURS),
        ("[tool.quickwins]\nignore = []\n", OURS + "ignore = []\n"),
        ("[ tool . 'quickwins' ]  # ours\n\n# that\nexclude = []\n",
         "[ tool . 'quickwins' ]  # ours\nselect = [\"onecycle\", \"metrics\"]\n\n# that\nexclude = []\n"),
        ("[tool.quickwins]\n  select=[ 'amp' ]  # why, \"#\"\r\nx = '''\n[tool.quickwins]\n'''\n",
         "[tool.quickwins]\n  select= [\"onecycle\", \"metrics\"]  # why, \"#\"\r\n"
         "x = '''\n[tool.quickwins]\n'''\n"),
        ("[tool.quickwins]\n'select' = [\n  'amp', # a [\n  'QW101',\n] # after\n[z]\nselect = []\n",
         "[tool.quickwins]\n'select' = [\"onecycle\", \"metrics\"] # after\n[z]\nselect = []\n"),
        ("a = '''\n[tool.quickwins]\nselect = []\n'''\n",
         "a = '''\n[tool.quickwins]\nselect = []\n'''\n\n" + OURS),
        ("[tool.quickwins.metrics]\nk = 3\n", "[tool.quickwins.metrics]\nk = 3\n\n" + OURS),
        ("[[tool.other]]\nselect = 1\n[[tool.other]]\n",
         "[[tool.other]]\nselect = 1\n[[tool.other]]\n\n" + OURS),
        ("\ufeff[tool.quickwins]\n", "\ufeff" + OURS),
        ("tool.ruff.x = 1\n", "tool.ruff.x = 1\n\n" + OURS),
    ],
)  # fmt: skip
def test_odd_files(before: str, after: str) -> None:
    assert edited(before) == after
    assert edited(after) == after, "a second time there is nothing to do"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS + "\n[tool.quickwins.onecycle]\nmax-lr-factor = 2.0\n"),
        (OURS + "[tool.quickwins.onecycle]\nmax_lr_factor = 3 # p\npct-start = 0.2\n",
         OURS + "[tool.quickwins.onecycle]\nmax_lr_factor = 2.0 # p\npct-start = 0.2\n"),
        ("[tool.quickwins.onecycle]\npct-start = 0.2\n[tool.quickwins]\nselect = ['amp']\n[z]\n",
         "[tool.quickwins.onecycle]\nmax-lr-factor = 2.0\npct-start = 0.2\n" + OURS + "[z]\n"),
        (OURS + "[tool.quickwins.onecycle]\nmax-lr-factor = 2 # as it is\n",
         OURS + "[tool.quickwins.onecycle]\nmax-lr-factor = 2 # as it is\n"),
    ],
)  # fmt: skip
def test_options_of_rules(before: str, after: str) -> None:
    assert edited(before, OPTIONS) == after


def test_several_options_of_one_rule_keep_their_order() -> None:
    options = {"hard-negatives": {"pool-size": 4, "positives": "liked"}, "amp": {"eval": True}}
    assert edited("[tool.quickwins.hard_negatives]\n", options) == (
        '[tool.quickwins.hard_negatives]\npool-size = 4\npositives = "liked"\n\n'
        + OURS
        + "\n[tool.quickwins.amp]\neval = true\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "[tool]\nquickwins = { select = ['amp'] }\n",
        "tool.quickwins.select = ['amp']\n",
        "tool = { ruff = {} }\n",
        "[tool]\nquickwins.exclude = []\n",
    ],
)
def test_what_cannot_be_edited_is_one_line_with_what_to_put_in(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        edited(text, OPTIONS)
    said = str(refused.value)
    assert "\n" not in said and said.endswith(
        'by hand: [tool.quickwins]; select = ["onecycle", "metrics"];'
        " [tool.quickwins.onecycle]; max-lr-factor = 2.0"
    )


# Anything else that TOML can hold

KEYS = st.sampled_from(["a", "select", '"b c"', "'='", "x-y", "ignore"])
VALUES = st.sampled_from([
    "1", "1.5e3", "true", "'#'", '"[tool.quickwins]"', "[1, 2]", "[\n  1, # one\n  2,\n]",
    '"""\n[tool.quickwins]\nselect = 1\n"""', "'''\n# = ]\n'''", "{ a = 1, b = '=' }",
    "1979-05-27T07:32:00Z", "[[1], ['a']]", '"\\u00e9\u2028\x85"',
])  # fmt: skip
BLANKS = st.sampled_from(["", "\n", "# comment [x]\n", "  # ü = 1\n\n", "\t\n"])
ENDS = st.sampled_from(["\n", " # after\n", "\t#\n"])


@st.composite
def statements(draw: st.DrawFn, keys: st.SearchStrategy[str] = KEYS) -> str:
    """Some keys with their values, and what stands between them."""
    parts = []
    for key in draw(st.lists(keys, max_size=3, unique=True)):
        parts += [draw(BLANKS), draw(st.sampled_from(["", "  "])), key]
        parts += [draw(st.sampled_from([" = ", "=", " =\t"])), draw(VALUES), draw(ENDS)]
    return "".join([*parts, draw(BLANKS)])


@st.composite
def tables(draw: st.DrawFn, names: list[str]) -> str:
    return "".join(name + draw(ENDS) + draw(statements()) for name in names)


#: `select` of an own table: what stands before its value, the value, and what stands after it.
SELECTS = st.tuples(
    st.sampled_from(["select = ", "  select=", "'select'\t= "]),
    st.sampled_from(["[]", "['amp']", "[\n  'amp', # one ]\n  '#', # two\n]"]),
    ENDS,
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str]:
    """A file, and what it is to become."""
    names = ["[project]", "[tool.ruff]", "[ z . 'w' ]", "[tool.quickwins-other]", "[[l]]"]
    cut = draw(st.integers(0, len(names)))
    before = draw(statements()) + draw(tables(draw(st.permutations(names[:cut]))))
    after = draw(tables(names[cut:]))
    tail = f"{OURS}\n" if (own := draw(st.booleans())) is False else ""
    tail += "[tool.quickwins.onecycle]\nmax-lr-factor = 2.0\n"
    value = '["onecycle", "metrics"]'
    if own:
        header = draw(st.sampled_from(["[tool.quickwins]", "[tool . quickwins]"])) + draw(ENDS)
        others = st.sampled_from(["ignore", '"b c"', "'='"])
        first, rest = draw(statements(others)), draw(BLANKS)
        if (select := draw(st.one_of(st.none(), SELECTS))) is None:
            old, new = header + first + rest, f"{header}select = {value}\n{first}{rest}"
        else:
            old = header + first + "".join(select) + rest
            new = header + first + select[0][: select[0].index("=")] + f"= {value}{select[2]}{rest}"
        before, made = before + old + after, before + new + after
    else:
        before = made = before + after
    if before and not before.endswith("\n"):
        made += "\n"
    made += ("\n" if made.strip() else "") + tail
    if draw(st.booleans()):
        before, made = before.replace("\n", "\r\n"), made.replace("\n", "\r\n")
    return before, made


@settings(max_examples=400, deadline=None)
@given(files())
def test_every_other_byte_stays(made: tuple[str, str]) -> None:
    before, after = made
    result = edited(before, OPTIONS)
    assert result == after
    old, new = parse(before), parse(result)
    table = new["tool"]["quickwins"]
    assert table.pop("select") == list(SELECT)
    assert table.pop("onecycle") == {"max-lr-factor": 2.0}
    old.setdefault("tool", {}).setdefault("quickwins", {}).pop("select", None)
    assert new == old
    assert edited(result, OPTIONS) == result


# Files and folders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_written_is_what_is_read(root: Path) -> None:
    (root / "pyproject.toml").write_bytes(
        b'[tool.quickwins]\r\nexclude = ["old/"]\r\nselect = ["amp"]\r\n'
    )
    asked = configuration.load(
        root, RULES, Flags(select=SELECT, options={"onecycle": {"max_lr_factor": 2.0}})
    )
    options = configedit.chosen(SELECT, asked, RULES)
    assert options == OPTIONS
    path = configedit.target(root)
    assert configedit.write(path, SELECT, options)
    loaded = configuration.load(root, RULES)
    assert (loaded.select, loaded.exclude) == (SELECT, ("old/",))
    assert loaded.rules == asked.rules
    before = path.stat().st_mtime_ns
    assert not configedit.write(path, SELECT, options)
    assert path.stat().st_mtime_ns == before


def test_a_flag_that_asks_for_what_is_built_in_is_written_over_the_file(root: Path) -> None:
    (root / "pyproject.toml").write_text(OURS + "[tool.quickwins.onecycle]\nmax-lr-factor = 2.0\n")
    asked = configuration.load(root, RULES, Flags(options={"onecycle": {"max_lr_factor": 3.0}}))
    options = configedit.chosen(SELECT, asked, RULES)
    assert options == {"onecycle": {"max-lr-factor": 3.0}}
    configedit.write(configedit.target(root), SELECT, options)
    assert configuration.load(root, RULES).rules["onecycle"].max_lr_factor == 3.0


def test_options_of_rules_that_go_are_not_needed(root: Path) -> None:
    asked = configuration.load(root, RULES, Flags(options={"amp": {"eval": True}}))
    assert configedit.chosen(SELECT, asked, RULES) == {}


def test_which_file_is_taken(root: Path) -> None:
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    assert configedit.target(inner) == inner / "pyproject.toml", "a new one"
    (root / "pyproject.toml").write_text("[project]\n")
    assert configedit.target(inner) == root / "pyproject.toml", "the nearest"
    (root / "a" / "pyproject.toml").write_text("[project]\n")
    assert configedit.target(inner) == root / "a" / "pyproject.toml"
    (root / "pyproject.toml").write_text("[tool.quickwins]\n")
    assert configedit.target(inner) == root / "pyproject.toml", "the one that is read"
    assert configuration.load(inner, RULES).select == ()
    configedit.write(configedit.target(inner), SELECT, {})
    assert configuration.load(inner, RULES).select == SELECT


def test_above_a_repository_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert configedit.target(inner) == inner / "pyproject.toml"
    (inner / ".git").mkdir()
    assert configedit.target(inner) == inner / "pyproject.toml"


@pytest.mark.parametrize("data", [b"[tool.quickwins\n", b"\xff\xfe", b"tool = 3\n", b"x = ["])
def test_what_is_no_configuration_is_one_line_and_stays(root: Path, data: bytes) -> None:
    path = root / "pyproject.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        configedit.write(path, SELECT, OPTIONS)
    assert "\n" not in str(refused.value) and str(refused.value).startswith("pyproject.toml")
    assert path.read_bytes() == data


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_link_out_of_the_folder_is_not_followed(root: Path, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other") / "pyproject.toml"
    other.write_text("[project]\n")
    (root / "pyproject.toml").symlink_to(other)
    with pytest.raises(ConfigError, match="lies outside"):
        configedit.write(root / "pyproject.toml", SELECT, {})
    assert other.read_text() == "[project]\n"
