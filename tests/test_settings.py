"""The configuration: what is read, what wins, and the one line for what cannot be used."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quickwins_codemod.configuration import Flags, load
from quickwins_codemod.options import OptionError, options_of
from quickwins_codemod.settings import ConfigError, Settings
from quickwins_codemod.transform import Code, Plan, Transform


@dataclass(frozen=True)
class OneCycleOptions:
    pct_start: float = field(default=0.1, metadata={"help": "warm-up", "above": 0, "below": 1})
    max_lr: float | None = field(default=None, metadata={"help": "the peak", "min": 0})
    rounds: int = field(default=1, metadata={"help": "rounds", "min": 1, "max": 9})
    logged: bool = field(default=True, metadata={"help": "log it"})
    anneal: str = field(default="cos", metadata={"help": "curve", "choices": ("cos", "linear")})


@dataclass(frozen=True)
class PairOptions:
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError("low must be under high")


def rule(name: str, options: type, *codes: str) -> Transform:
    pages = tuple(Code(code, name, "title", "page") for code in codes)
    return Transform(name, name, (b"x",), options, "", pages, lambda script, options: Plan())


RULES = (
    rule("onecycle", OneCycleOptions, "QW101", "QW110"),
    rule("hard-negatives", PairOptions, "QW201", "QW210"),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(root: Path, text: str, flags: Flags | None = None) -> Settings:
    (root / "pyproject.toml").write_text(text)
    return load(root, RULES, flags)


def test_built_in_values_without_a_file(root: Path) -> None:
    settings = load(root, RULES)
    assert settings.rules == {"onecycle": OneCycleOptions(), "hard-negatives": PairOptions()}
    assert settings.origin("select") == "built in"


def test_everything_a_file_can_say(root: Path) -> None:
    settings = configure(
        root,
        """
        [tool.quickwins]
        select = ["onecycle", "qw201"]
        ignore = ["QW110", "qw004"]
        exclude = ["legacy/"]
        runtime = "installed"
        [tool.quickwins.per-file-ignores]
        "old/**" = ["hard_negatives"]
        [tool.quickwins.onecycle]
        pct-start = 0.3
        max_lr = 1
        [tool.quickwins.hard_negatives]
        high = 4
        """,
    )
    assert settings.select == ("onecycle", "QW201")
    assert settings.ignore == ("QW110", "QW004")
    assert settings.exclude == ("legacy/",)
    assert settings.runtime == "installed"
    assert settings.per_file_ignores == {"old/**": ("hard-negatives",)}
    assert settings.rules["onecycle"] == OneCycleOptions(pct_start=0.3, max_lr=1.0)
    assert isinstance(settings.rules["onecycle"].max_lr, float)
    assert settings.rules["hard-negatives"] == PairOptions(high=4)
    assert settings.origin("onecycle.max-lr") == "pyproject.toml"
    assert settings.origin("onecycle.rounds") == "built in"


def test_the_command_line_wins(root: Path) -> None:
    flags = Flags(
        select=("QW101",), ignore=("QW210",), exclude=("a.py",), options={"onecycle": {"rounds": 3}}
    )
    settings = configure(
        root,
        """
        [tool.quickwins]
        select = ["hard-negatives"]
        ignore = ["onecycle", "QW201"]
        exclude = ["legacy/"]
        onecycle = {rounds = 2, pct-start = 0.2}
        """,
        flags,
    )
    assert settings.select == ("QW101",)
    assert settings.ignore == ("QW201", "QW210"), "an ignored rule that is asked for by name runs"
    assert settings.exclude == ("legacy/", "a.py"), "a folder left out stays left out"
    assert settings.rules["onecycle"] == OneCycleOptions(rounds=3, pct_start=0.2)
    assert settings.origin("select") == "--select"
    assert settings.origin("onecycle.rounds") == "--rounds"
    assert settings.origin("onecycle.pct-start") == "pyproject.toml"
    assert settings.origin("exclude") == "pyproject.toml and --exclude"


def test_nearest_file_with_the_table_up_to_the_repository(root: Path) -> None:
    inner = root / "packages" / "inner"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    (root / "pyproject.toml").write_text("[tool.quickwins]\nselect = ['QW101']\n")
    assert load(inner, RULES).select == ("QW101",)
    (inner / ".git").mkdir()
    assert load(inner, RULES).select == (), "the top of a repository ends the search"


def test_a_named_file_replaces_the_search(root: Path) -> None:
    (root / "pyproject.toml").write_text("[tool.quickwins]\nselect = ['QW101']\n")
    (root / "other.toml").write_text("[tool.quickwins]\nselect = ['QW201']\n")
    assert load(root, RULES, Flags(config=Path("other.toml"))).select == ("QW201",)


BAD = [
    ("[tool.quickwins]\nselct = []", 'tool.quickwins.selct: unknown key; did you mean "select"?'),
    ("[tool.quickwins]\nwidgets = 3", "tool.quickwins.widgets: unknown key"),
    ("[tool]\nquickwins = 3", "tool.quickwins: must be a table"),
    ("tool = 3", "tool: must be a table"),
    (
        "[tool.quickwins]\nselect = ['onecycel']",
        'tool.quickwins.select: unknown rule or code "onecycel"; did you mean "onecycle"?',
    ),
    (
        "[tool.quickwins]\nselect = ['QW004']",
        'tool.quickwins.select: "QW004" is about whole files and cannot be chosen here; '
        "leave a file out by exclude",
    ),
    (
        "[tool.quickwins]\nignore = ['QW001']",
        'tool.quickwins.ignore: "QW001" is about whole files and cannot be chosen here; '
        "leave a file out by exclude",
    ),
    ("[tool.quickwins]\nselect = 'QW101'", "tool.quickwins.select: must be a list of strings"),
    ("[tool.quickwins]\nexclude = [3]", "tool.quickwins.exclude: must be a list of strings"),
    (
        "[tool.quickwins]\nexclude = ['[z-a]']",
        'tool.quickwins.exclude: "[z-a]" is no pattern of a .gitignore',
    ),
    (
        "[tool.quickwins]\nruntime = 'bundeld'",
        'tool.quickwins.runtime: must be "bundled" or "installed"; did you mean "bundled"?',
    ),
    (
        "[tool.quickwins]\nruntime = []",
        'tool.quickwins.runtime: must be "bundled" or "installed"',
    ),
    (
        "[tool.quickwins]\nper-file-ignores = []",
        "tool.quickwins.per-file-ignores: must be a table of patterns and lists of rules or codes",
    ),
    (
        "[tool.quickwins.per-file-ignores]\n'a.py' = ['QW11']",
        'tool.quickwins.per-file-ignores."a.py": unknown rule or code "QW11"; '
        'did you mean "QW110"?',
    ),
    (
        "[tool.quickwins.onecycle]\npct-strat = 1",
        'tool.quickwins.onecycle.pct-strat: unknown option; did you mean "pct-start"?',
    ),
    (
        "[tool.quickwins.onecycle]\nrounds = true",
        "tool.quickwins.onecycle.rounds: must be a whole number, not true",
    ),
    (
        "[tool.quickwins.onecycle]\nrounds = 0",
        "tool.quickwins.onecycle.rounds: must be at least 1, not 0",
    ),
    (
        "[tool.quickwins.onecycle]\npct_start = 1",
        "tool.quickwins.onecycle.pct_start: must be less than 1, not 1",
    ),
    (
        "[tool.quickwins.onecycle]\nmax-lr = nan",
        "tool.quickwins.onecycle.max-lr: must be a finite number, not nan",
    ),
    (
        "[tool.quickwins.onecycle]\nanneal = 'cosine'",
        'tool.quickwins.onecycle.anneal: must be one of "cos", "linear", not "cosine"',
    ),
    (
        "[tool.quickwins.onecycle]\npct-start = 0.2\npct_start = 0.3",
        "tool.quickwins.onecycle.pct_start: is given twice, with a dash and with an underscore",
    ),
    (
        "[tool.quickwins]\nonecycle = 0.1",
        "tool.quickwins.onecycle: must be a table of that rule's options",
    ),
    (
        "[tool.quickwins.hard-negatives]\nlow = 3",
        "tool.quickwins.hard-negatives: low must be under high",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_one_line_for_what_cannot_be_used(root: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(root, text)
    line = 1 if "low must" in message else 1 + text.count("\n")
    assert str(caught.value) == f"pyproject.toml:{line}: {message}"


def test_broken_toml_names_the_line(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^pyproject\.toml:3:\d+: not TOML: [^\n]+$"):
        configure(root, "[tool.quickwins]\nselect = []\nignore = oops\n")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml:2:(\d+:)? not TOML: [^\n]+$"):
        configure(root, "[tool.quickwins]\nselect = [")
    (root / "pyproject.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml: is not UTF-8"):
        load(root, RULES)


def test_a_named_file_that_is_no_use(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^nowhere\.toml: cannot be read: No such file"):
        load(root, RULES, Flags(config=Path("nowhere.toml")))
    (root / "plain.toml").write_text("select = []")
    with pytest.raises(ConfigError, match=r"^plain\.toml: has no \[tool\.quickwins\] table$"):
        load(root, RULES, Flags(config=Path("plain.toml")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(select=("amp2",)), '--select: unknown rule or code "amp2"'),
        (Flags(ignore=("QW100",)), '--ignore: unknown rule or code "QW100"; did you mean "QW'),
        (Flags(exclude=("!",)), '--exclude: "!" is no pattern of a .gitignore'),
        (
            Flags(options={"hard-negatives": {"low": 5}}),
            "the options of hard-negatives: low must be under high",
        ),
    ],
)
def test_one_line_for_bad_flags(root: Path, flags: Flags, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(root, RULES, flags)
    assert str(caught.value).startswith(message)


def test_wants_rules_and_codes() -> None:
    everything = Settings()
    assert everything.wants_rule("onecycle", ["QW101"]) and everything.wants("onecycle", "QW101")
    by_code = Settings(select=("QW101",))
    assert by_code.wants_rule("onecycle", ["QW101", "QW110"])
    assert not by_code.wants_rule("hard-negatives", ["QW201"])
    assert by_code.wants("onecycle", "QW101") and not by_code.wants("onecycle", "QW110")
    assert by_code.wants("file", "QW001"), "a selection hides no broken file"
    ignoring = Settings(ignore=("onecycle", "QW004"))
    assert not ignoring.wants_rule("onecycle") and not ignoring.wants("onecycle", "QW101")
    assert not ignoring.wants("file", "QW004") and ignoring.wants("hard-negatives", "QW201")


def test_per_file_ignores_follow_gitignore_patterns() -> None:
    settings = Settings(
        ignore=("QW110",), per_file_ignores={"old/": ("onecycle",), "*_gen.py": ("QW110",)}
    )
    assert settings.for_file("old/deep/a.py").ignore == ("QW110", "onecycle")
    assert settings.for_file("new/a.py") is settings
    assert settings.for_file("a_gen.py") is settings, "nothing that is not ignored already"


def test_patterns_count_from_where_they_were_written(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "pyproject.toml").write_text(
        "[tool.quickwins]\nexclude = ['sub/old/', '/top.py']\n"
        "per-file-ignores = {'sub/a.py' = ['onecycle']}\n"
    )
    below = load(root / "sub", RULES, Flags(exclude=("sub/new/", "x.py")))
    assert below.exclude == ("sub/new/", "x.py"), "what discovery applies from the root"
    assert below.leaves_out("old/deep/a.py") and below.leaves_out("new/a.py")
    assert not below.leaves_out("a.py") and not below.leaves_out("top.py")
    assert below.for_file("a.py").ignore == ("onecycle",)
    at_top = load(root, RULES)
    assert (at_top.exclude, at_top.outer_excludes) == (("sub/old/", "/top.py"), ())
    assert at_top.for_file("sub/a.py").ignore == ("onecycle",)


def test_settings_travel_to_workers(root: Path) -> None:
    settings = load(root, RULES)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_options_of_a_dataclass() -> None:
    options = {option.name: option for option in options_of(OneCycleOptions)}
    assert (options["max_lr"].kind, options["max_lr"].optional) == (float, True)
    assert options["pct_start"].key == "pct-start"
    assert options["pct_start"].check(0.5) == 0.5
    with pytest.raises(OptionError, match="must be greater than 0, not 0"):
        options["pct_start"].check(0)


def test_an_option_of_another_type_is_a_mistake_of_the_rule() -> None:
    @dataclass(frozen=True)
    class Wrong:
        names: list[str] = field(default_factory=list)

    with pytest.raises(TypeError, match="names: an option is"):
        options_of(Wrong)
