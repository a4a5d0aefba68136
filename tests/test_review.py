"""What becomes of a file when its sites are taken or declined one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickwins_codemod import pipeline, review
from quickwins_codemod.report.prompting import EditError, Question
from quickwins_codemod.settings import Settings
from quickwins_codemod.source import Source, decode
from quickwins_codemod.transform import Finding, all_transforms
from quickwins_codemod.verdict import FileOutcome, RunResult, Touched, Verdict

PAIRS = Path(__file__).resolve().parent.parent / "fixtures" / "pairs"
INPUTS = sorted(PAIRS.rglob("*.in.py"))

IMPORT = b"import quickwins_runtime\n"


@dataclass
class Made:
    """A file of lines; each site is a letter that becomes a capital at its line.

    needs: what a site does not hold without.
    """

    path: str
    letters: str
    rules: str = ""
    needs: dict[str, str] = field(default_factory=dict)
    imports: bool = True
    asked: list[str] = field(default_factory=list)

    @property
    def source(self) -> Source:
        data = "".join(f"{letter} = 1\n" for letter in self.letters).encode()
        return decode(Path(self.path), data)

    @property
    def findings(self) -> tuple[Finding, ...]:
        if not hasattr(self, "_findings"):
            rules = self.rules or "r" * len(self.letters)
            self._findings = tuple(
                Finding((Verdict(rule, "applied", f"QW_{x}", n, 1, f"do {x}"),), (x,))  # type: ignore[arg-type]
                for n, (x, rule) in enumerate(zip(self.letters, rules), 1)
            ) + (Finding((Verdict("r", "warning", "QW_w", 1, 1, "careful"),)),)
        return self._findings

    def kept(self, declined: Collection[Finding] = ()) -> list[Finding]:
        return [f for f in self.findings if f not in declined]

    def outcome(self, declined: Collection[Finding] = ()) -> FileOutcome:
        left = {f.edits[0] for f in declined}
        taken = [x for x in self.letters if x not in left]
        self.asked.append("".join(taken))
        for x in taken:
            if not set(self.needs.get(x, "")) <= set(taken):
                raise pipeline.SelfCheckError(f"{x} needs {self.needs[x]}")
        verdicts = tuple(v for f in self.findings if f not in declined for v in f.verdicts)
        if not taken:
            return FileOutcome(self.path, "unchanged", verdicts, self.source.data)
        text = self.source.text
        for x in taken:
            text = text.replace(f"{x} = 1", f"{x.upper()} = 2")
        touched = tuple(Touched(frozenset(), f.verdicts) for f in self.findings if f.edits)
        after = (IMPORT if self.imports else b"") + text.encode()
        return FileOutcome(self.path, "changed", verdicts, self.source.data, after, touched)


class Scripted:
    """Somebody who gives the answers of a list, and remembers what was shown."""

    def __init__(self, answers: str, edits: Sequence[bytes | None | Exception] = (), mend: str = ""):
        self.answers, self.edits, self.mendings = list(answers), list(edits), list(mend)
        self.said: list[str] = []
        self.questions: list[Question] = []

    def open(self, path: str, number: int, files: int, sites: int) -> None:
        self.said.append(f"open {path} {number}/{files} {sites}")

    def ask(self, question: Question) -> str:
        self.questions.append(question)
        key = self.answers.pop(0)
        words = {"y": "yes", "n": "no", "a": "all", "s": "skip", "e": "edit", "k": "back"}
        return words.get(key, "quit")

    def took(self, question: Question) -> None:
        self.said.append(f"took {question.head.verdict.code}")

    def cannot(self, site, missing) -> None:
        lacking = ",".join(m.verdict.code for m in missing)
        self.said.append(f"cannot {site.verdict.code} without {lacking}")

    def at_start(self, path: str) -> None:
        self.said.append("at start")

    def skipped(self, path: str, dropped: int) -> None:
        self.said.append(f"skipped {path} {dropped}")

    def not_asked(self, path: str, why: str) -> None:
        self.said.append(f"not asked {path}: {why}")

    def edits_later(self) -> None:
        self.said.append("edits later")

    def edit(self, path: str, data: bytes, line: int) -> bytes | None:
        self.said.append(f"edit at {line}: {data.decode()}")
        edited = self.edits.pop(0)
        if isinstance(edited, Exception):
            raise edited
        return edited

    def mend(self, path: str, why: str) -> str:
        self.said.append(f"mend {why}")
        return {"e": "edit", "d": "drop", "s": "skip"}[self.mendings.pop(0)]


RUNTIME = FileOutcome("quickwins_runtime/__init__.py", "added", (), None, b"")


def run(*files: Made, person: Scripted) -> RunResult:
    made = {file.path: file for file in files}
    outcomes = [file.outcome() for file in files] if not files[0].needs else [
        FileOutcome(f.path, "changed", (), b"old", IMPORT, tuple(
            Touched(frozenset(), x.verdicts) for x in f.findings if x.edits)) for f in files
    ]  # fmt: skip
    result = RunResult("/repository", len(files), len(files), (*outcomes, RUNTIME))
    reviewed = review.review(result, made.__getitem__, person)
    assert not person.answers and not person.edits and not person.mendings
    return reviewed


def taken(result: RunResult, path: str = "a.py") -> str:
    """The sites that a file was rewritten for."""
    (outcome,) = [o for o in result.outcomes if o.path == path]
    text = (outcome.after or b"").decode()
    return "".join(line[0].lower() for line in text.split("\n") if line.endswith("2"))


# Yes, no, and what they leave


@pytest.mark.parametrize(("answers", "left"), [
    ("yyy", "abc"), ("nnn", ""), ("yny", "ac"), ("nyn", "b"), ("q", ""), ("yq", "a"), ("nyq", "b"),
    ("ynkyn", "ab"), ("yknnn", ""), ("kyyy", "abc"), ("yykknyy", "bc"),
    ("a", "abc"), ("na", "bc"), ("s", ""), ("yys", ""), ("ns", ""),
])  # fmt: skip
def test_what_is_left_of_one_file(answers: str, left: str) -> None:
    file = Made("a.py", "abc")
    result = run(file, person=Scripted(answers))
    assert taken(result) == left and result.declined == 3 - len(left)
    (outcome,) = [o for o in result.outcomes if o.path == "a.py"]
    assert outcome.before == file.source.data
    assert [v.code for v in outcome.verdicts if v.status == "applied"] == [f"QW_{x}" for x in left]
    assert outcome.has_change == bool(left) == (RUNTIME in result.outcomes)
    assert outcome.status == ("changed" if left else "unchanged")


def test_a_question_shows_what_the_site_adds_to_what_was_taken() -> None:
    person = Scripted("yny")
    run(Made("a.py", "abc"), person=person)
    shown = [(q.number, q.total, q.head.verdict.code, q.before, q.after) for q in person.questions]
    old = b"a = 1\nb = 1\nc = 1\n"
    one, both = (IMPORT + text for text in (b"A = 2\nb = 1\nc = 1\n", b"A = 2\nB = 2\nc = 1\n"))
    assert shown == [
        (1, 3, "QW_a", old, one), (2, 3, "QW_b", one, both),
        (3, 3, "QW_c", one, IMPORT + b"A = 2\nb = 1\nC = 2\n"),
    ]  # fmt: skip


def test_sites_are_asked_about_in_the_order_of_the_file() -> None:
    file = Made("a.py", "abc")
    file._findings = tuple(reversed(file.findings))
    person = Scripted("yyy")
    run(file, person=person)
    assert [q.head.verdict.line for q in person.questions] == [1, 2, 3]


def test_all_takes_the_rest_of_a_rule_in_every_file() -> None:
    files = [Made("a.py", "abc", "rsr"), Made("b.py", "de", "sr")]
    person = Scripted("ann")
    result = run(*files, person=person)
    assert (taken(result), taken(result, "b.py")) == ("ac", "e") and result.declined == 2
    assert [q.head.verdict.code for q in person.questions] == ["QW_a", "QW_b", "QW_d"]
    assert [s for s in person.said if s.startswith("took")] == ["took QW_c", "took QW_e"]


def test_all_is_taken_back_with_its_answer() -> None:
    result = run(Made("a.py", "abc", "rsr"), person=Scripted("aknnn"))
    assert taken(result) == ""


def test_skip_leaves_the_file_and_goes_on_with_the_next() -> None:
    person = Scripted("ysyy")
    result = run(Made("a.py", "abc"), Made("b.py", "de"), person=person)
    assert (taken(result), taken(result, "b.py"), result.declined) == ("", "de", 3)
    assert "skipped a.py 1" in person.said
    assert [(q.number, q.total) for q in person.questions] == [(1, 5), (2, 5), (4, 5), (5, 5)]


def test_quit_keeps_what_was_taken_and_looks_at_no_other_file() -> None:
    last = Made("c.py", "f")
    files = [Made("a.py", "ab"), Made("b.py", "de"), last]
    person = Scripted("yyyq")
    outcomes = [file.outcome() for file in files]
    last.asked.clear()
    result = review.review(
        RunResult("/repository", 3, 3, (*outcomes, RUNTIME)),
        {file.path: file for file in files}.__getitem__, person,
    )  # fmt: skip
    assert (taken(result), taken(result, "b.py"), taken(result, "c.py")) == ("ab", "d", "")
    assert result.declined == 2 and last.asked == []
    (left,) = [o for o in result.outcomes if o.path == "c.py"]
    assert (left.status, left.after, left.verdicts) == ("unchanged", None, ())


def test_a_runtime_that_nothing_taken_imports_is_not_added() -> None:
    files = [Made("a.py", "a"), Made("b.py", "d", imports=False)]
    assert RUNTIME in run(*files, person=Scripted("yy")).outcomes
    assert RUNTIME not in run(*files, person=Scripted("ny")).outcomes


def test_files_that_cannot_be_written_are_not_asked_about() -> None:
    person = Scripted("y")
    files = [Made("a.py", "a"), Made("b.py", "d", imports=False)]
    result = RunResult("/repository", 2, 2, (*(file.outcome() for file in files), RUNTIME))
    verdict = Verdict("file", "refused", "QW007", 1, 1, "has changes that are not staged")
    refused = FileOutcome("a.py", "error", (verdict,))
    left = review.refuse(result, [refused], person)
    done = review.review(left, {f.path: f for f in files}.__getitem__, person)
    assert person.said[0] == "not asked a.py: has changes that are not staged"
    assert [q.head.path for q in person.questions] == ["b.py"]
    assert refused in done.outcomes and RUNTIME not in done.outcomes and taken(done, "b.py") == "d"


def test_a_file_that_changed_since_the_run_is_what_it_is_now() -> None:
    person = Scripted("")
    result = RunResult("/repository", 2, 2, (Made("a.py", "a").outcome(), Made("b.py", "a").outcome()))
    error = FileOutcome("a.py", "error", (Verdict("file", "refused", "QW001", 1, 1, "broken"),))
    done = review.review(result, lambda path: error if path == "a.py" else None, person)
    assert done.outcomes == (error, FileOutcome("b.py", "unchanged"))


# Sites that do not hold without others


@pytest.mark.parametrize(("needs", "answers", "left", "said"), [
    ({"a": "b", "b": "a"}, "yn", "ab", []),
    ({"a": "b", "b": "a"}, "nn", "", ["cannot QW_b without QW_a"]),
    ({"a": "c"}, "yn", "ac", []),
    ({"a": "c"}, "nny", "c", []),
    ({"c": "a"}, "ynn", "a", []),
    ({"c": "a"}, "nn", "", ["cannot QW_c without QW_a"]),
    ({"a": "bc"}, "y", "abc", []),
    ({"b": "a", "c": "ab"}, "n", "", ["cannot QW_b without QW_a", "cannot QW_c without QW_a,QW_b"]),
])  # fmt: skip
def test_what_belongs_together_goes_together(
    needs: dict[str, str], answers: str, left: str, said: list[str]
) -> None:
    person = Scripted(answers)
    result = run(Made("a.py", "abc", needs=needs), person=person)
    assert taken(result) == left and result.declined == 3 - len(left)
    assert [s for s in person.said if s.startswith("cannot")] == said


def test_a_question_about_two_names_both() -> None:
    person = Scripted("yn")
    run(Made("a.py", "abc", needs={"a": "c"}), person=person)
    together = [[site[0].verdict.code for site in q.sites] for q in person.questions]
    assert together == [["QW_a", "QW_c"], ["QW_b"]]


def test_all_of_a_rule_does_not_take_another_rule_along() -> None:
    person = Scripted("an")
    result = run(Made("a.py", "abc", "rrs", needs={"b": "c", "c": "b"}), person=person)
    assert taken(result) == "a" and len(person.questions) == 2


# Editing


def test_an_edit_comes_after_the_last_site_and_is_what_is_written() -> None:
    person = Scripted("eyn", [b"mine = 1\n"])
    result = run(Made("a.py", "abc"), person=person)
    (outcome,) = [o for o in result.outcomes if o.path == "a.py"]
    assert outcome.after == b"mine = 1\n" and result.declined == 1
    final = (IMPORT + b"A = 2\nB = 2\nc = 1\n").decode()
    assert person.said[-2:] == ["edits later", f"edit at 1: {final}"]
    assert RUNTIME not in result.outcomes, "the edit has taken its import out"


def test_an_edit_of_the_last_site_comes_at_once_and_one_is_enough() -> None:
    person = Scripted("nee", [None])
    result = run(Made("a.py", "abc"), person=person)
    assert taken(result) == "bc" and person.said.count("edits later") == 1
    assert "edit at 3: " in person.said[-1]


def test_quit_and_skip_after_an_edit() -> None:
    assert taken(run(Made("a.py", "abc"), person=Scripted("eq", [None]))) == "a"
    assert taken(run(Made("a.py", "abc"), person=Scripted("es"))) == ""


@pytest.mark.parametrize(("edits", "mend", "after"), [
    ([b"(\n", b"x = 1\n"], "e", b"x = 1\n"),
    ([b"(\n", None, b"x = 1\n"], "ee", b"x = 1\n"),
    ([b"\xff\n"], "d", IMPORT + b"A = 2\n"),
    ([b"(\n"], "s", None),
    ([EditError("vi: Editing failed")], "d", IMPORT + b"A = 2\n"),
    ([EditError("vi: Editing failed"), b"x = 1\n"], "e", b"x = 1\n"),
    ([b"a = 1\n"], "", None),
    ([b"# coding: latin-1\nx = '\xe9'\n"], "", b"# coding: latin-1\nx = '\xe9'\n"),
])  # fmt: skip
def test_an_edit_must_be_python_in_its_encoding(
    edits: list[bytes | None | Exception], mend: str, after: bytes | None
) -> None:
    person = Scripted("e", edits, mend)
    result = run(Made("a.py", "a"), person=person)
    assert result.outcomes[0].after == after and result.declined == (after is None)
    why = [s for s in person.said if s.startswith("mend")]
    assert len(why) == len(mend)
    if b"(\n" in edits:
        assert why[0] == "mend line 1 cannot be parsed: '(' was never closed"
        assert "edit at 1: (\n" in person.said or mend == "s", "it opens what was typed"


@pytest.mark.parametrize(("line", "expected"), [(1, 1), (2, 2), (3, 5), (4, 6)])
def test_a_line_is_found_again(line: int, expected: int) -> None:
    before, after = b"one\ntwo\nthree\nfour\n", b"one\nnew\nnew\nTWO\nthree\nfour\n"
    assert review.line_after(before, after, line) == expected


# The real pipeline


def planned(data: bytes, folder: Path) -> pipeline.Planned:
    path = folder.resolve() / "train.py"
    path.write_bytes(data)
    rules = {rule.rule: rule.options_type() for rule in all_transforms()}
    context = pipeline.Context(path.parent, path.parent, Settings(rules=rules))
    found = pipeline.planned(path, context)
    assert isinstance(found, pipeline.Planned)
    return found


def changing(file: pipeline.Planned) -> Counter[frozenset[tuple[str, str, str]]]:
    """What the sites of a file are, wherever they stand."""
    return Counter(
        frozenset((v.rule, v.code, v.message) for v in f.applied) for f in file.findings if f.edits
    )


class Chance(Scripted):
    """Somebody who answers at random."""

    def __init__(self, random: random.Random) -> None:
        super().__init__("")
        self.random = random

    def ask(self, question: Question) -> str:
        self.questions.append(question)
        return self.random.choice(["yes", "no"])


#: Another rule's lines take from one site what it must be sure of.
SHY = {"resampled_each_epoch"}


@settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(path=st.sampled_from(INPUTS), chance=st.randoms(use_true_random=False))
def test_any_answers_make_a_consistent_file(
    path: Path, chance: random.Random, tmp_path: Path
) -> None:
    file = planned(path.read_bytes(), tmp_path)
    full, person = file.outcome(), Chance(chance)
    result = review.review(RunResult(str(tmp_path), 1, 1, (full,)), lambda _: file, person)
    (outcome,) = result.outcomes
    if result.declined == 0:
        assert outcome == full
    done = {v for v in outcome.verdicts if v.status == "applied"}
    taken = [f for f in file.findings if f.edits and set(f.applied) <= done]
    assert len(taken) == changing(file).total() - result.declined
    left = changing(file) - Counter(
        frozenset((v.rule, v.code, v.message) for v in f.applied) for f in taken
    )
    data = outcome.after or outcome.before or b""
    compile(data, path.name, "exec", dont_inherit=True)
    again = changing(planned(data, tmp_path))
    assert not again - left
    assert again == left or path.name.removesuffix(".in.py") in SHY


@pytest.mark.parametrize(("answers", "left", "said"), [
    (["yes"], 2, []), (["no"], 0, ["cannot QW101 without QW101"]),
])  # fmt: skip
def test_the_optimizers_of_a_gan_go_together(
    answers: list[str], left: int, said: list[str], tmp_path: Path
) -> None:
    file = planned((PAIRS / "onecycle" / "two_optimizers.in.py").read_bytes(), tmp_path)
    person = Scripted("".join(answer[0] for answer in answers))
    run = RunResult(str(tmp_path), 1, 1, (file.outcome(),))
    result = review.review(run, lambda _: file, person)
    assert (result.outcomes[0].after or b"").count(b"= OneCycle(") == left
    assert [s for s in person.said if s.startswith("cannot")] == said
    assert not person.answers and len(person.questions[0].sites) == 2


def test_declining_one_rule_is_ignoring_it(tmp_path: Path) -> None:
    path = PAIRS.parent / "recsys" / "two_tower_model" / "train_with_wandb.py"
    file = planned(path.read_bytes(), tmp_path)
    rules = {v.rule for f in file.findings if f.edits for v in f.verdicts if v.status == "applied"}
    assert len(rules) == 4
    for rule in sorted(rules):
        result = review.review(
            RunResult(str(tmp_path), 1, 1, (file.outcome(),)), lambda _: file, ByRule(rule)
        )
        context = pipeline.Context(
            file.context.root, file.context.root,
            Settings(rules=file.context.settings.rules, ignore=(rule,)),
        )  # fmt: skip
        ignored = pipeline.process(file.source.path, context)
        assert ignored is not None and result.outcomes[0].after == ignored.after


class ByRule(Scripted):
    """Somebody who does not want one rule."""

    def __init__(self, rule: str) -> None:
        super().__init__("")
        self.rule = rule

    def ask(self, question: Question) -> str:
        return "no" if question.head.verdict.rule == self.rule else "yes"


def test_only_what_was_declined_may_be_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (PAIRS / "amp" / "step_below_a_norm.in.py").read_bytes()
    real = pipeline._rewritten
    file = planned(data, tmp_path)
    first, second, *_ = (f for f in file.findings if f.edits)
    assert file.outcome([first]).has_change and file.outcome([second]).has_change
    monkeypatch.setattr(
        pipeline, "_rewritten",
        lambda script, findings, *rest: real(script, [f for f in findings if f is not first], *rest)
    )  # fmt: skip
    assert file.outcome([first]).has_change
    with pytest.raises(pipeline.SelfCheckError, match="a second run would change it again"):
        file.outcome([second])
