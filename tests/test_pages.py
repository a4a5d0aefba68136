"""The pages of `quickwins explain`: one for each code, complete, and true.

Each example of a rule's page is a piece of a script. It is run through the rule: what the page
says of it must be what the tool says. An example with `-` and `+` is a change, by the tool where
the code stands for one, else by the user, who gets rid of the code by it.
"""

from __future__ import annotations

import ast
import re
import symtable
from pathlib import Path

import pytest
from click.testing import CliRunner

from quickwins_codemod import pipeline, transform, verdict
from quickwins_codemod.cli import build
from quickwins_codemod.settings import FILE_RULE, Settings

ROOT = Path(__file__).parents[1]
RULES = transform.all_transforms()
FILE_PAGE, FILE_CODES = transform.codes_of(verdict.__doc__ or "", FILE_RULE)
RULE_CODES = tuple(code for rule in RULES for code in rule.codes)
CODES = (*FILE_CODES, *RULE_CODES)
PARTS = ("What it does:", "Why:", "Example:", "What to do:")
RULE_PARTS = ("What it does:", "Why:", "Example:", "When it refuses:", "Options:", "Sources:")
#: Codes that stand for a rewrite: the example's change is the tool's own.
REWRITES = {code.code for code in RULE_CODES if 1 <= int(code.code[3:]) < 10}
PRELUDE = """\
import torch
from torch import nn, optim
from torch.utils.data import DataLoader

"""
#: What an example may use without saying where it comes from.
GIVEN = {
    "epochs": "epochs = 10\n",
    "loader": "loader = DataLoader(dataset, batch_size=64)\n",
    "val_loader": "val_loader = DataLoader(held_out, batch_size=64)\n",
    "wandb": "import wandb\n",
    "argparse": "import argparse\n",
    "device": 'device = torch.device("cuda")\n',
    "criterion": "criterion = nn.MSELoss()\n",
    "model": "model = nn.Linear(8, 1)\n",
    "optimizer": "optimizer = optim.Adam(model.parameters(), lr=1e-3)\n",
    "recommender": (
        "class Factors(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.users, self.items = nn.Embedding(20, 8), nn.Embedding(50, 8)\n"
        "    def forward(self, users, items):\n"
        "        return (self.users(users) * self.items(items)).sum(-1)\n"
        "recommender = Factors()\n"
    ),
    "hybrid": (
        "class Hybrid(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.users, self.items = nn.Embedding(20, 8), nn.Embedding(50, 8)\n"
        "        self.genres = nn.Linear(4, 8)\n"
        "    def forward(self, users, items, genres):\n"
        "        return (self.users(users) * (self.items(items) + self.genres(genres))).sum(-1)\n"
        "hybrid = Hybrid()\n"
    ),
    "softmax": "softmax = nn.CrossEntropyLoss()\n",
    "ranker": (
        "class Ranker(nn.Module):\n"
        "    def __init__(self, count):\n"
        "        super().__init__()\n"
        "        self.items = nn.Embedding(count, 8)\n"
        "        self.output = nn.Linear(8, count)\n"
        "    def forward(self, histories):\n"
        "        return self.output(self.items(histories).mean(1))\n"
        "ranker = Ranker(50)\n"
    ),
    "scaler": 'scaler = torch.amp.GradScaler("cuda")\n',
}
#: Options under which an example's page speaks, by code.
ASKED = {"QW307": {"eval": True}, "QW356": {"eval": True}}
#: Files beside an example that its page tells of.
BESIDE = {"QW327": {"layers.py": "scores = scores.masked_fill(mask, -1e9)\n"}}


def by_code(code: transform.Code) -> str:
    return code.code


def examples(page: str) -> list[str]:
    """The indented blocks of a page, without their indentation."""
    found, lines = [], []
    for line in [*page.split("\n"), "end"]:
        if line.startswith("    ") or (lines and not line):
            lines.append(line[4:])
        elif lines:
            found.append("\n".join(lines).strip("\n") + "\n")
            lines = []
    return found


def example(page: str) -> str:
    """The first block after "Example:", where a line may say what it is."""
    return examples(page.partition("\nExample:")[2])[0]


def sides(text: str) -> tuple[str, str | None]:
    """The text before and after a change; None after where the example shows none."""
    lines = text.split("\n")
    if not any(line[:1] in ("-", "+") for line in lines if line):
        return text, None
    assert all(line[:1] in ("", " ", "-", "+") for line in lines), text
    before = "\n".join(line[1:] for line in lines if line[:1] != "+")
    return before, "\n".join(line[1:] for line in lines if line[:1] != "-")


def script(piece: str) -> str:
    """A module around a piece of a script, with what the piece takes for granted."""
    given = "".join(text for name, text in GIVEN.items() if name in free_names(piece))
    return f"{PRELUDE}{given}\n{piece}"


def free_names(text: str) -> set[str]:
    tables = [symtable.symtable(text, "example", "exec")]
    bound = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned()}
    read: set[str] = set()
    for table in tables:
        tables += table.get_children()
        top = table is tables[0]
        read |= {s.get_name() for s in table.get_symbols() if top or s.is_global()}
    return read - bound


def status(code: transform.Code) -> str:
    """What the number says: x00 already, to x09 applied, to x49 refused, from x50 warnings."""
    number = int(code.code[3:])
    ends = {0: "already", 9: "applied", 49: "refused", 99: "warning"}
    return next(word for last, word in ends.items() if number <= last)


def rewritten(
    text: str, rule: str, asked: dict[str, object] | None = None
) -> tuple[str, tuple[verdict.Verdict, ...]]:
    options = next(r.options_type for r in RULES if r.rule == rule)(**(asked or {}))
    return pipeline.rewrite(text, rule, options)


def rewritten_beside(
    files: dict[str, str], text: str, rule: str, folder: Path
) -> tuple[str, tuple[verdict.Verdict, ...]]:
    """The same for a script that has these files beside it."""
    for name, content in {**files, "train.py": text}.items():
        (folder / name).write_text(content, encoding="utf-8")
    options = {r.rule: r.options_type() for r in RULES}
    settings = Settings(rules=options, select=(rule,))
    outcome = pipeline.process(
        folder.resolve() / "train.py", pipeline.Context(folder.resolve(), folder.resolve(), settings)
    )
    assert outcome is not None
    new = outcome.after.decode() if outcome.after is not None else text
    return new, outcome.verdicts


def explained(*names: str) -> str:
    result = CliRunner().invoke(build(RULES), ["explain", *names])
    assert result.exit_code == 0, result.output
    return result.output


def emitted() -> set[str]:
    """The codes that stand in the sources as text of their own, so that a verdict can have them."""
    found: set[str] = set()
    for folder in (ROOT / "quickwins_codemod", ROOT / "transforms", ROOT / "runtime"):
        for path in folder.rglob("*.py"):
            found |= set(re.findall(r"""["'](QW\d{3})["']""", path.read_text(encoding="utf-8")))
    return found


def test_every_code_that_can_be_said_has_a_page_and_no_page_is_of_another() -> None:
    assert emitted() == {code.code for code in CODES}


def test_every_code_has_one_page() -> None:
    names = [code.code for code in CODES]
    assert len(names) == len(set(names))
    for rule in (FILE_RULE, *(r.rule for r in RULES)):
        of_rule = [code.code for code in CODES if code.rule == rule]
        assert of_rule == sorted(of_rule)
        assert len({code[2] for code in of_rule}) == 1, "one hundred of numbers for one rule"


@pytest.mark.parametrize("code", CODES, ids=by_code)
def test_a_page_has_the_parts_of_the_template_in_their_order(code: transform.Code) -> None:
    starts = [line for line in code.page.split("\n") if line.startswith(PARTS)]
    assert [s.partition(":")[0] + ":" for s in starts] == list(PARTS)
    said = [line for line in code.page.split("\n") if line.strip()]
    assert 7 <= len(said) <= 20
    assert code.title[0].islower() or code.title.split()[0] in ("OneCycle", "OneCycleLR", "LBFGS")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_the_page_of_a_rule_has_its_parts_and_names_its_options(rule: transform.Transform) -> None:
    starts = [line for line in rule.page.split("\n") if line.startswith(RULE_PARTS)]
    assert [s.partition(":")[0] + ":" for s in starts] == list(RULE_PARTS)
    for name, field in rule.options_type.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')}"
        line = next(line for line in rule.page.split("\n") if line.strip().startswith(f"{flag} "))
        if isinstance(field.default, bool):
            assert line.split()[1] == str(field.default).lower()
        elif field.default is not None:
            assert type(field.default)(line.split()[1]) == field.default
    assert "https://" in rule.page


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_the_page_of_a_rule_names_each_code_that_refuses(rule: transform.Transform) -> None:
    listed = rule.page.partition("When it refuses:")[2].partition("Options:")[0]
    named: set[int] = set()
    for first, last in re.findall(r"QW(\d{3})(?: to QW(\d{3}))?", listed):
        named |= set(range(int(first), int(last or first) + 1))
    refusals = {int(c.code[2:]) for c in rule.codes if 10 <= int(c.code[3:]) < 50}
    assert refusals <= named
    assert named <= refusals | {4}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_the_example_of_a_rule_is_what_the_rule_does(rule: transform.Transform) -> None:
    before, after = sides(example(rule.page))
    new, said = rewritten(before, rule.rule)
    assert new == after
    assert [v.status for v in said] == ["applied"]
    compile(before, "before", "exec")


@pytest.mark.parametrize("code", RULE_CODES, ids=by_code)
def test_an_example_gets_the_code_of_its_page(code: transform.Code, tmp_path: Path) -> None:
    before, after = sides(example(code.page))

    def run(piece: str) -> tuple[str, tuple[verdict.Verdict, ...]]:
        if code.code in BESIDE:
            return rewritten_beside(BESIDE[code.code], script(piece), code.rule, tmp_path)
        return rewritten(script(piece), code.rule, ASKED.get(code.code))

    new, said = run(before)
    assert code.code in [v.code for v in said]
    assert {v.status for v in said if v.code == code.code} == {status(code)}
    if code.code in REWRITES:
        assert after is not None and new.endswith(after)
    elif after is not None:
        # What the user is told to do gets the script over the hurdle, without another one.
        _, said = run(after)
        done = {"applied"} if status(code) == "refused" else {"applied", "already"}
        assert done & {v.status for v in said}
        assert "refused" not in [v.status for v in said]
        assert code.code not in [v.code for v in said]


@pytest.mark.parametrize("code", CODES, ids=by_code)
def test_the_examples_are_python_on_both_sides(code: transform.Code) -> None:
    if code.rule == FILE_RULE:
        return  # they show commands and configuration
    for side in sides(example(code.page)):
        ast.parse(side or "")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_python_on_the_page_of_a_rule_compiles(rule: transform.Transform) -> None:
    shown = [block for block in examples(rule.page) if re.match(r"(from|import) ", block)]
    for block in shown:
        ast.parse(block)


@pytest.mark.parametrize("code", CODES, ids=by_code)
def test_explain_prints_the_page(code: transform.Code) -> None:
    for spelling in (code.code, code.code.lower()):
        assert explained(spelling) == f"{code.code} ({code.rule}): {code.title}\n\n{code.page}\n"


def test_explain_prints_the_rules_and_the_table() -> None:
    table = explained()
    for name, page in [(FILE_RULE, FILE_PAGE), *((r.rule, r.page) for r in RULES)]:
        assert explained(name).startswith(f"{name}\n\n{page}\n")
    for code in CODES:
        assert f"  {code.code}  {code.title}\n" in table
        assert f"  {code.code}  {code.title}\n" in explained(code.rule)


def test_pages_fit_the_screen() -> None:
    texts = [FILE_PAGE, *(r.page for r in RULES), *(c.page for c in CODES)]
    assert max(len(line) for text in texts for line in text.split("\n")) <= 100
