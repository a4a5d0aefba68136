"""Opt-out comments: what they leave out, what stays as it was, and which of them are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quickwins_codemod import cli, optout, pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.verdict import FileOutcome, Verdict

RULES = all_transforms()
NAMES = tuple(rule.rule for rule in RULES)
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "pairs"

SCRIPT = '''\
"""Trains factors on made ratings."""

import torch
import wandb
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.user_embedding = nn.Embedding(20, 8)
        self.item_embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, users, items):
        return self.head(self.user_embedding(users) * self.item_embedding(items)).squeeze(-1)


def report(value):
    print(value)


def main():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    users, items = torch.randint(0, 20, (400,)), torch.randint(0, 50, (400,))
    ratings = torch.randint(1, 6, (400,)).float()
    train_data = TensorDataset(users[:300], items[:300], ratings[:300])
    train_loader = DataLoader(train_data, batch_size=32, shuffle=True)
    val_loader = DataLoader(TensorDataset(users[300:], items[300:], ratings[300:]), batch_size=32)
    model = Factors().to(device)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(
        optimizer,
        step_size=2,
    )
    wandb.init(project="films")
    for epoch in range(3):
        model.train()
        for users, items, ratings in train_loader:
            users, items, ratings = users.to(device), items.to(device), ratings.to(device)
            optimizer.zero_grad()
            loss = criterion(model(users, items), ratings)
            loss.backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        val_loss = 0.0
        with torch.no_grad():
            for users, items, ratings in val_loader:
                users, items, ratings = users.to(device), items.to(device), ratings.to(device)
                val_loss += criterion(model(users, items), ratings).item()
        wandb.log({"val_loss": val_loss / len(val_loader)})
    report(val_loss)


if __name__ == "__main__":
    main()
'''
#: The line whose end an opt-out of each rule is put to: where the rule's verdict stands.
PLACES = {
    "onecycle": "    scheduler = torch.optim.lr_scheduler.StepLR(",
    "hard-negatives": "            loss = criterion(model(users, items), ratings)",
    "amp": "            loss.backward()",
    "metrics": '        wandb.log({"val_loss": val_loss / len(val_loader)})',
}

#: The verdicts of two rules on one line: one rewrites it, the other refuses.
SHARED = "            loss = criterion(model(users, items), ratings); loss.backward()"
JOINED = SCRIPT.replace(f"{PLACES['hard-negatives']}\n{PLACES['amp']}", SHARED)


def look(text: str | bytes, folder: Path, **settings: object) -> FileOutcome:
    path = folder.resolve() / "train.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rules = {rule.rule: rule.options_type() for rule in RULES}
    context = pipeline.Context(path.parent, path.parent, Settings(rules=rules, **settings))
    outcome = pipeline.process(path, context)
    assert outcome is not None
    return outcome


def at(line: str, comment: str, text: str = SCRIPT) -> str:
    """The script with a comment at the end of a line."""
    assert text.count(f"{line}\n") == 1, line
    return text.replace(f"{line}\n", f"{line}  {comment}\n")


def applied(outcome: FileOutcome) -> list[str]:
    return [v.rule for v in outcome.verdicts if v.status == "applied"]


def of(outcome: FileOutcome, *rules: str) -> list[tuple[str, str]]:
    return [(v.code, v.message) for v in outcome.verdicts if v.rule in rules]


def remarks(outcome: FileOutcome) -> list[Verdict]:
    return [v for v in outcome.verdicts if v.code == "QW010"]


def after(outcome: FileOutcome) -> str:
    assert outcome.after is not None, outcome.verdicts
    return outcome.after.decode()


def test_the_script_is_one_for_all_four_rules(tmp_path: Path) -> None:
    assert sorted(applied(look(SCRIPT, tmp_path))) == sorted(NAMES)


# What is left out, and what is not touched by that


@pytest.mark.parametrize("rule", NAMES)
def test_a_rule_left_out_at_its_line_is_as_if_it_were_ignored(rule: str, tmp_path: Path) -> None:
    # A comment of the same length, so that the file's longest line is the same.
    plain = look(at(PLACES[rule], f"# quickwins, skip[{rule}]"), tmp_path, ignore=(rule,))
    outcome = look(at(PLACES[rule], f"# quickwins: skip[{rule}]"), tmp_path)

    assert of(outcome, rule) == [] and remarks(outcome) == []
    assert outcome.verdicts == plain.verdicts and len(set(applied(outcome))) == 3
    assert after(outcome) == after(plain).replace("# quickwins,", "# quickwins:")


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("name", ["in place", "function", "class", "file"])
def test_a_rule_left_out_elsewhere_too(rule: str, name: str, tmp_path: Path) -> None:
    comment = f"# quickwins: skip[{rule}]"
    text = {
        "in place": at(PLACES[rule], comment),
        "function": at("def main():", comment),
        "class": at("class Run:", comment, in_a_class(SCRIPT)),
        "file": f"{comment}\n{SCRIPT}",
    }[name]
    outcome = look(text, tmp_path)

    assert of(outcome, rule) == [] and remarks(outcome) == []
    assert sorted(applied(outcome)) == sorted(set(NAMES) - {rule})
    assert comment in after(outcome)


def in_a_class(text: str) -> str:
    """The script with its main() as a method of a class."""
    head, _, rest = text.partition("def main():\n")
    body, _, tail = rest.partition("\n\nif __name__")
    lines = "".join(f"    {line}" if line.strip() else line for line in body.splitlines(True))
    call = tail.replace("    main()", "    Run.main()")
    return f"{head}class Run:\n    @staticmethod\n    def main():\n{lines}\n\nif __name__{call}"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("rule", NAMES)
def test_a_second_run_still_finds_the_comment_in_use(
    rule: str, ending: str, tmp_path: Path
) -> None:
    # metrics gives the optimizer to a tracker, which is another matter for onecycle.
    others = tuple({"metrics"} - {rule}) if rule == "onecycle" else ()
    text = at(PLACES[rule], f"# quickwins: skip[{rule}]").replace("\n", ending)
    first = look(text, tmp_path, ignore=others)
    assert len(set(applied(first))) == 3 - len(others)
    assert first.after is not None
    assert first.after.count(b"\n") == first.after.count(ending.encode())
    again = look(first.after, tmp_path, ignore=others)
    assert again.after is None and remarks(again) == [] and of(again, rule) == []


def test_skip_alone_leaves_out_every_rule_there(tmp_path: Path) -> None:
    assert {v.rule for v in look(JOINED, tmp_path).verdicts} == set(NAMES)
    outcome = look(at(SHARED, "# quickwins: skip", JOINED), tmp_path)
    assert {"onecycle", "metrics"} == {v.rule for v in outcome.verdicts} == set(applied(outcome))
    whole = look(at("def main():", "# quickwins: skip"), tmp_path)
    assert (whole.status, whole.verdicts, whole.after) == ("unchanged", (), None)


def test_codes_and_rules_in_one_list(tmp_path: Path) -> None:
    outcome = look(at("def main():", "# quickwins: skip[QW301, one_cycle, onecycle]"), tmp_path)
    assert {"hard-negatives", "metrics"} == set(applied(outcome))
    assert [v.message for v in remarks(outcome)] == [
        'this opt-out has an unknown rule or code "one_cycle"; did you mean "onecycle"?'
    ]


def test_a_code_leaves_out_nothing_but_its_own(tmp_path: Path) -> None:
    full = look(SCRIPT, tmp_path)
    notes = [v for v in full.verdicts if v.status == "warning"]
    assert notes
    outcome = look(at("def main():", f"# quickwins: skip[{notes[0].code}]"), tmp_path)
    assert sorted(applied(outcome)) == sorted(applied(full)), "a remark goes, its rewrite stays"
    assert notes[0].code not in [v.code for v in outcome.verdicts]
    assert after(outcome).replace(f"  # quickwins: skip[{notes[0].code}]", "") == after(full)


def test_two_on_one_line(tmp_path: Path) -> None:
    comment = "# quickwins: skip[amp]  # quickwins: skip[hard-negatives]"
    outcome = look(at(SHARED, comment, JOINED), tmp_path)
    assert {"onecycle", "metrics"} == {v.rule for v in outcome.verdicts} == set(applied(outcome))
    half = comment.replace("hard-negatives", "onecycle")
    (said,) = remarks(look(at(SHARED, half, JOINED), tmp_path))
    assert said.message == "this opt-out of onecycle silences nothing"
    lines = at(SHARED, half, JOINED).split("\n")
    assert lines[said.line - 1][said.column - 1 :] == "# quickwins: skip[onecycle]"


def test_a_comment_after_words_of_its_own(tmp_path: Path) -> None:
    text = at("            loss.backward()", "# by hand  # quickwins: skip[amp] (issue 7)")
    outcome = look(text, tmp_path)
    assert "amp" not in applied(outcome) and remarks(outcome) == []


@pytest.mark.parametrize("line", [
    PLACES["onecycle"], "        optimizer,", "        step_size=2,",
])  # fmt: skip
def test_any_line_of_the_statement_does(line: str, tmp_path: Path) -> None:
    outcome = look(at(line, "# quickwins: skip[onecycle]"), tmp_path)
    assert "onecycle" not in applied(outcome) and remarks(outcome) == []
    above = SCRIPT.replace(f"{line}\n", f"{line}\n        # quickwins: skip[onecycle]\n")
    if not line.endswith("2,"):
        assert "onecycle" not in applied(look(above, tmp_path)), "on a line within its parentheses"


def test_a_function_is_left_alone_that_a_finding_from_elsewhere_would_edit(tmp_path: Path) -> None:
    source = (FIXTURES / "onecycle" / "train_function.in.py").read_text()
    (header,) = [line for line in source.split("\n") if line.startswith("def train")]
    full = look(source, tmp_path, select=("onecycle",))
    (verdict,) = [v for v in full.verdicts if v.status == "applied"]
    assert verdict.line > source[: source.index(header)].count("\n") + 5, "it stands elsewhere"
    opted = look(at(header, "# quickwins: skip", source), tmp_path, select=("onecycle",))
    assert opted.after is None and applied(opted) == []


def test_nested_functions_and_decorators(tmp_path: Path) -> None:
    head, _, rest = SCRIPT.partition("def main():\n")
    body, _, tail = rest.partition("\n\nif __name__")
    inner = "".join(f"    {line}" if line.strip() else line for line in body.splitlines(True))
    for outer, decorated in (("# quickwins: skip[amp]", ""), ("", "# quickwins: skip[amp]")):
        text = (
            f"import functools\n{head}def main():  {outer}\n    @functools.cache  {decorated}\n"
            f"    def inner():\n{inner}\n    inner()\n\nif __name__{tail}"
        )
        plain = look(text.replace("# quickwins:", "# quickwins,"), tmp_path)
        assert "amp" in applied(plain)
        outcome = look(text, tmp_path)
        assert set(applied(outcome)) == set(applied(plain)) - {"amp"} and remarks(outcome) == []
    (said,) = remarks(look(at("def report(value):", "# quickwins: skip[amp]"), tmp_path))
    assert said.message == "this opt-out of amp silences nothing", "another function's is not meant"


TWO = (FIXTURES / "onecycle" / "two_optimizers.in.py").read_text()
SCHEDULE = "sched_{} = optim.lr_scheduler.ExponentialLR(opt_{}, gamma=0.95)"


@pytest.mark.parametrize(("opted", "alone"), [("g", "d"), ("d", "g")])
def test_one_of_two_optimizers_keeps_the_other_from_a_cycle_too(
    opted: str, alone: str, tmp_path: Path
) -> None:
    line = SCHEDULE.format(opted, opted)
    outcome = look(at(line, "# quickwins: skip[onecycle]", TWO), tmp_path, select=("onecycle",))
    assert outcome.after is None and outcome.status == "refused" and remarks(outcome) == []
    (said,) = outcome.verdicts
    assert (said.status, said.code) == ("refused", "QW131")
    assert said.message == (
        f"`opt_{opted}`, which steps in the same loop, gets no cycle, since that is left out"
    )
    assert TWO.split("\n")[said.line - 1].startswith(f"opt_{alone} = ")


def test_both_of_two_optimizers_or_the_word_on_the_other(tmp_path: Path) -> None:
    one = at(SCHEDULE.format("g", "g"), "# quickwins: skip[onecycle]", TWO)
    both = at(SCHEDULE.format("d", "d"), "# quickwins: skip[onecycle]", one)
    outcome = look(both, tmp_path, select=("onecycle",))
    assert outcome.after is None and outcome.verdicts == ()
    (made,) = [line for line in TWO.split("\n") if line.startswith("opt_d = ")]
    for name in ("QW131", "onecycle"):
        outcome = look(at(made, f"# quickwins: skip[{name}]", one), tmp_path, select=("onecycle",))
        assert outcome.after is None and outcome.verdicts == ()


def test_a_code_that_is_ignored_keeps_the_other_from_a_cycle_too(tmp_path: Path) -> None:
    text = TWO.replace(SCHEDULE.format("g", "g") + "\n", "").replace("    sched_g.step()\n", "")
    full = look(text, tmp_path, select=("onecycle",))
    codes = {v.code for v in full.verdicts if v.status == "applied"}
    assert codes == {"QW101", "QW102"}
    for code in sorted(codes):
        outcome = look(text, tmp_path, ignore=(code,))
        assert outcome.after is None and of(outcome, "onecycle") == [
            ("QW131", f"`opt_{'d' if code == 'QW101' else 'g'}`, which steps in the same loop,"
             " gets no cycle, since that is left out")
        ]
        assert of(look(text, tmp_path, ignore=(code, "QW131")), "onecycle") == []


def test_optimizers_of_two_loops_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    other = SCRIPT.partition("def main():\n")[2].partition("    report(val_loss)")[0]
    text = SCRIPT.replace("def report(", f"def first():\n{other}\n\ndef report(")
    header = "def first():"
    assert len(applied(look(text, tmp_path, select=("onecycle",)))) == 2
    outcome = look(at(header, "# quickwins: skip[onecycle]", text), tmp_path, select=("onecycle",))
    assert applied(outcome) == ["onecycle"] and len(of(outcome, "onecycle")) == 1


@pytest.mark.parametrize(("line", "rule"), [
    ("        scheduler.step()", "onecycle"),  # it would go
    ("            optimizer.step()", "amp"),  # it would change
    ("            loss = criterion(model(users, items), ratings)", "amp"),  # it would move
])  # fmt: skip
def test_a_line_that_would_be_touched_stays_and_the_whole_finding_with_it(
    line: str, rule: str, tmp_path: Path
) -> None:
    assert applied(look(SCRIPT, tmp_path, select=(rule,))) == [rule]
    text = at(line, f"# quickwins: skip[{rule}]")
    outcome = look(text, tmp_path, select=(rule,))
    assert outcome.after is None and of(outcome, rule) == [] and remarks(outcome) == []
    assert set(applied(look(text, tmp_path))) == set(NAMES) - {rule}, "the other rules go on"


def test_a_line_beside_which_code_is_set_stays_as_it_is(tmp_path: Path) -> None:
    text = at("            optimizer.step()", "# quickwins: skip[onecycle]")
    outcome = look(text, tmp_path, select=("onecycle",))
    (said,) = remarks(outcome)
    assert applied(outcome) == ["onecycle"] and "names" in (said.hint or ""), "says where to put it"
    step = "optimizer.step()  # quickwins: skip[onecycle]\n            scheduler.step()\n"
    assert step in after(outcome)


def test_a_line_of_what_would_go_or_move_as_a_whole(tmp_path: Path) -> None:
    guarded = SCRIPT.replace(
        "        scheduler.step()\n", "        if epoch:\n            scheduler.step()\n"
    )
    outcome = look(at("        if epoch:", "# quickwins: skip[onecycle]", guarded), tmp_path)
    assert "onecycle" not in applied(outcome) and remarks(outcome) == []
    region = SCRIPT.replace(
        "            loss = criterion(model(users, items), ratings)\n",
        "            out = model(users, items)\n            scores = out * 1\n"
        "            loss = criterion(scores, ratings)\n",
    )
    assert "amp" in applied(look(region, tmp_path))
    outcome = look(at("            scores = out * 1", "# quickwins: skip[amp]", region), tmp_path)
    assert "amp" not in applied(outcome) and remarks(outcome) == []


def test_a_parameter_of_a_function_touches_its_header_alone(tmp_path: Path) -> None:
    source = (FIXTURES / "onecycle" / "train_function.in.py").read_text()
    full = look(source, tmp_path, select=("onecycle",))
    (header,) = [line for line in source.split("\n") if line.startswith("def train")]
    assert "scheduler" in next(x for x in after(full).split("\n") if x.startswith("def train"))
    body = source.split(header + "\n")[1].split("\n")[0]
    text = source.replace(f"{header}\n{body}\n", f"{header}\n{body}  # quickwins: skip\n")
    outcome = look(text, tmp_path, select=NAMES)
    assert applied(outcome) == ["onecycle"], body


# What a comment is


@pytest.mark.parametrize("line", [
    'note = "# quickwins: skip"', '"""\n# quickwins: skip\n"""', "x = f'{1} # quickwins: skip'",
])  # fmt: skip
def test_text_in_strings_is_none(line: str, tmp_path: Path) -> None:
    outcome = look(f"{line}\n{SCRIPT}", tmp_path)
    assert sorted(applied(outcome)) == sorted(NAMES) and remarks(outcome) == []
    documented = SCRIPT.replace("def main():\n", 'def main():\n    """# quickwins: skip"""\n')
    assert sorted(applied(look(documented, tmp_path))) == sorted(NAMES)


@pytest.mark.parametrize("comment", ["# quickwins: skipped", "# quickwins skip", "# skip[amp]"])
def test_other_comments_are_none(comment: str, tmp_path: Path) -> None:
    outcome = look(at("            loss.backward()", comment), tmp_path)
    assert sorted(applied(outcome)) == sorted(NAMES) and remarks(outcome) == []


@pytest.mark.parametrize("head", [
    "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# quickwins: skip\n",
    "\n\n# quickwins: skip\n",
])  # fmt: skip
def test_the_whole_file(head: str, tmp_path: Path) -> None:
    for text in (head + SCRIPT, SCRIPT.replace('s."""\n', f's."""\n{head}', 1)):
        outcome = look(text, tmp_path)
        assert (outcome.status, outcome.verdicts) == ("unchanged", ())


def test_a_comment_of_its_own_below_the_first_code_is_reported(tmp_path: Path) -> None:
    for line in ("import torch", "            optimizer.zero_grad()"):
        text = SCRIPT.replace(f"{line}\n", f"{line}\n            # quickwins: skip\n", 1)
        outcome = look(text, tmp_path)
        (said,) = remarks(outcome)
        assert "on a line of its own" in said.message and "end of the line" in (said.hint or "")
        assert sorted(applied(outcome)) == sorted(NAMES)


# Which are reported


@pytest.mark.parametrize(("comment", "message"), [
    ("# quickwins: skip", "this opt-out silences nothing"),
    ("# quickwins: skip[amp, onecycle]", "this opt-out of amp, onecycle silences nothing"),
    ("# quickwins: skip[QW101]", "this opt-out of QW101 silences nothing"),
    ("# quickwins: skip[QW004]", "this opt-out of QW004 silences nothing"),
    ("# quickwins: skip[apm]",
     'this opt-out has an unknown rule or code "apm"; did you mean "amp"?'),
    ("# quickwins: skip[QW010]",
     'this opt-out has an unknown rule or code "QW010"; did you mean "QW'),
    ("# quickwins: skip[]", "this opt-out cannot be read"),
    ("# quickwins: skip[amp", "this opt-out cannot be read"),
])  # fmt: skip
def test_one_that_silences_nothing_is_a_warning(
    comment: str, message: str, tmp_path: Path
) -> None:
    plain = look(SCRIPT, tmp_path)
    outcome = look(at("    print(value)", comment), tmp_path)
    (said,) = remarks(outcome)
    assert (said.rule, said.status) == ("file", "warning") and said.message.startswith(message)
    line = SCRIPT[: SCRIPT.index("    print(value)")].count("\n") + 1
    assert (said.line, said.column) == (line, len("    print(value)  ") + 1)
    assert sorted(applied(outcome)) == sorted(applied(plain)), "and changes nothing else"
    assert after(outcome).replace(f"  {comment}", "") == after(plain)
    assert remarks(look(at("    print(value)", comment), tmp_path, ignore=("QW010",))) == []


def test_an_unclosed_list_leaves_nothing_out(tmp_path: Path) -> None:
    outcome = look(at("            loss.backward()", "# quickwins: skip[amp"), tmp_path)
    assert "amp" in applied(outcome) and len(remarks(outcome)) == 1


def test_one_of_a_rule_that_did_not_run_is_not_judged(tmp_path: Path) -> None:
    text = at("            loss.backward()", "# quickwins: skip[amp]")
    assert remarks(look(text, tmp_path, select=("onecycle",))) == []
    assert remarks(look(text, tmp_path, ignore=("amp",))) == []
    bare = at("    print(value)", "# quickwins: skip")
    assert remarks(look(bare, tmp_path, select=("onecycle",))) == []
    assert len(remarks(look(bare, tmp_path))) == 1
    # One that silences what a code's ignoring hides as well is in use.
    assert remarks(look(text, tmp_path, ignore=("QW301",))) == []


def test_a_refusal_is_silenced_and_comes_back(tmp_path: Path) -> None:
    refused = (
        "import torch\nmodel = torch.nn.Linear(2, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\noptimizer.step()\n"
    )
    plain = look(refused, tmp_path)
    (verdict,) = [v for v in plain.verdicts if v.status == "refused"]
    lines = refused.split("\n")
    lines[verdict.line - 1] += f"  # quickwins: skip[{verdict.code}]"
    outcome = look("\n".join(lines), tmp_path)
    assert (plain.status, outcome.status, outcome.verdicts) == ("refused", "unchanged", ())


def test_a_comment_in_a_file_that_is_no_candidate_is_found(tmp_path: Path) -> None:
    outcome = look("number = 1  # quickwins: skip[onecycle]\n", tmp_path)
    assert [v.code for v in outcome.verdicts] == ["QW010"] and outcome.status == "unchanged"


def test_without_one_a_file_is_ruled_out_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path.resolve() / "a.py"
    context = pipeline.Context(path.parent, path.parent, Settings())
    for text in ("number = 1\n", "def (:  # skip\n", "number = 1  # quickwins\n"):
        path.write_text(text)  # one of them is no Python, and nobody parses it
        assert pipeline.process(path, context) is None


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_count_as_in_the_verdicts_whatever_ends_them(ending: str) -> None:
    text = at("    print(value)", "# quickwins: skip[amp]").replace("\n", ending)
    (said,) = optout.OptOuts(text, RULES).remarks(NAMES)
    assert (said.line, said.column) == (21, 19)


# The command line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_reports_and_apply_keeps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = at("def main():", "# quickwins: skip[metrics, hard-negatives, amp]")
    path = here / "train.py"
    path.write_text(at("def report(value):", "# quickwins: skip[amp]", text))

    assert cli.invoke(["check", "train.py"]) == cli.DUE
    said = capsys.readouterr().out
    assert ":20:21: QW010 this opt-out of amp silences nothing\n" in said and " QW101 " in said
    assert cli.invoke(["apply", "train.py"]) == cli.NOTHING
    assert "OneCycle(" in path.read_text() and "autocast" not in path.read_text()
    capsys.readouterr()
    assert cli.invoke(["check", "train.py"]) == cli.NOTHING, "a warning makes nothing due"
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()] == ["QW010"]
    assert cli.invoke(["check", "train.py", "--format", "json"]) == cli.NOTHING
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert {(v["rule"], v["status"]) for v in file["verdicts"] if v["code"] == "QW010"} == {
        ("file", "warning")
    }
    assert cli.invoke(["check", "train.py", "--ignore", "QW010"]) == cli.NOTHING
    assert "QW010" not in capsys.readouterr().out
