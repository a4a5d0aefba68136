"""Mixed precision, before and after, and what is left alone: each a file in fixtures/, by glob.

A new pair is `fixtures/pairs/amp/NAME.in.py` and `NAME.out.py`; a script that has mixed precision
already is called `existing_...`. A new refusal is `fixtures/refused/amp/CODE_reason.py`, where
`# <- CODE` ends each line that is named (a file that is no CODE is a module that others import);
mixed precision that the script has, right (QW300) or wrong (QW35x), is left alone too.
"""

import amp_helpers as amp
import pytest

torch = pytest.importorskip("torch")

ADDED = [p for p in amp.INPUTS if not amp.name(p).startswith("existing_")]
EXISTING = [p for p in amp.INPUTS if amp.name(p).startswith("existing_")]
REFUSED = sorted(amp.REFUSED.glob("QW*.py"))
#: Pairs that name "cuda", where autocast is off on a machine without.
ON_CUDA_ONLY = {"moved_by_cuda"}
#: Existing mixed precision that trains in full precision on a machine without CUDA.
OFF_ON_CPU = {"existing_old_names", "existing_old_imports", "existing_old_decorator"}
#: Outputs as they should be, which the tool does not reach yet, with the reason.
AWAITED: dict[str, str] = {}


def awaited(path):
    reason = AWAITED.get(amp.name(path))
    marks = pytest.mark.xfail(reason=reason, strict=True) if reason else ()
    return pytest.param(path, id=amp.name(path), marks=marks)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return amp.place_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.mark.parametrize("path", [awaited(p) for p in amp.INPUTS])
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = amp.look_at(path.read_bytes(), tmp_path)

    assert outcome.after is not None, amp.said(outcome)
    assert outcome.after.decode() == amp.output(path).read_bytes().decode()
    compile(outcome.after, "train.py", "exec", dont_inherit=True)


@pytest.mark.parametrize("path", amp.INPUTS, ids=amp.name)
def test_nothing_is_left_to_do(path, tmp_path):
    again = amp.look_at(amp.output(path).read_bytes(), tmp_path)

    assert again.after is None, again.diff()
    assert "QW300" in amp.codes(again, "already"), amp.said(again)
    assert not amp.codes(again, "applied", "refused")


@pytest.mark.parametrize("path", ADDED, ids=amp.name)
@pytest.mark.parametrize("precision", ["off", "fp16", "bf16"])
def test_trains_as_it_should_in_every_precision(path, precision, runtime, monkeypatch, capsys):
    before = amp.train(path, monkeypatch)
    after = amp.train(amp.output(path), monkeypatch, precision, runtime)
    on = precision != "off" and amp.name(path) not in ON_CUDA_ONLY

    assert after.wrong == []
    assert after.forwards and set(after.forwards) == {on}
    assert set(after.losses) <= {on}
    assert not any(after.evaluations)
    assert len(after.forwards) == len(before.forwards)
    assert after.backwards == after.scaled == before.backwards
    assert after.steps + after.skipped == before.steps
    assert after.clips == before.clips
    assert after.skipped == 0 or precision == "fp16"


@pytest.mark.parametrize("path", EXISTING, ids=amp.name)
def test_existing_mixed_precision_is_right_after_it_was_mended(path, runtime, monkeypatch, capsys):
    after = amp.train(amp.output(path), monkeypatch, None, runtime)
    on = amp.name(path) not in OFF_ON_CPU

    assert after.wrong == []
    assert after.steps and (not on or all(after.losses) and all(after.forwards))
    assert not [w for w in after.warnings if "deprecated" in w]


#: Faults that the recorder or torch itself must find in the inputs, so that the repair is one.
FAULTY = {
    "existing_unscale_missing": "clip_grad_norm_ on scaled gradients",
    "existing_unscale_conditional": "clip_grad_norm_ on scaled gradients",
    "existing_scaler_or_none": "clip_grad_norm_ on scaled gradients",
    "existing_clip_beside_branches": "clip_grad_norm_ on scaled gradients",
    "existing_norm_guard": "clip_grad_norm_ on scaled gradients",
    "existing_update_in_branch": "unscale_() has already been called",
    "existing_update_jumped_over": "unscale_() has already been called",
    "existing_backward_unscaled": "scaled gradients added to unscaled ones",
    "existing_autocast_around_step": "backward under autocast",
    "existing_autocast_around_branches": "backward under autocast",
    "existing_autocast_around_loop": "backward under autocast",
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_repaired_script_was_wrong_and_does_all_of_it_right(name, tmp_path, monkeypatch, capsys):
    path = amp.PAIRS / f"{name}.in.py"
    try:
        wrong = amp.train(path, monkeypatch).wrong
    except RuntimeError as error:
        wrong = [str(error)]
    assert any(FAULTY[name] in w for w in wrong)

    after = amp.train(amp.output(path), monkeypatch)
    assert after.wrong == []
    assert after.scaled == after.backwards > 0
    assert after.updates == 30  # one for each of three times ten batches


@pytest.mark.parametrize("code", ["QW303", "QW304", "QW305"])
def test_a_repair_that_is_not_wanted_leaves_the_others(code, tmp_path):
    name = {"QW304": "existing_update_in_branch"}.get(code, "existing_backward_unscaled")
    source = (amp.PAIRS / f"{name}.in.py").read_bytes()
    applied = amp.codes(amp.look_at(source, tmp_path), "applied")
    left = amp.look_at(source, tmp_path, ignore=(code,))

    assert code in applied
    assert amp.codes(left, "applied") == [c for c in applied if c != code]
    assert amp.codes(left, "already") == ["QW300"]


def test_a_helper_that_another_file_may_call_keeps_its_parameters(tmp_path):
    source = (amp.PAIRS / "step_in_function.in.py").read_bytes()
    assert amp.codes(amp.look_at(source, tmp_path), "applied") == ["QW301"]

    (tmp_path / "other.py").write_text("from train import clip_and_step\n")
    outcome = amp.look_at(source, tmp_path)
    assert amp.codes(outcome) == ["QW324"] and outcome.after is None


def test_every_input_has_an_output():
    outputs = sorted(amp.PAIRS.glob("*.out.py"))

    assert [amp.name(p) for p in amp.INPUTS] == [amp.name(p) for p in outputs]


def test_there_are_two_refusals_for_three_pairs_at_least():
    assert len(REFUSED) * 3 >= len(amp.INPUTS) * 2


@pytest.fixture
def beside(tmp_path):
    """A folder with the modules that refused scripts import."""
    for path in amp.REFUSED.glob("*.py"):
        if path not in REFUSED:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("path", [awaited(p) for p in REFUSED])
def test_is_left_alone_and_the_report_says_where_and_why(path, beside):
    marks = sorted(
        (found[1], number)
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if (found := amp.MARK.search(line))
    )
    outcome = amp.look_at(path.read_bytes(), beside)

    assert outcome.after is None and outcome.before == path.read_bytes()
    assert sorted((v.code, v.line) for v in outcome.verdicts) == marks, amp.said(outcome)
    for verdict in outcome.verdicts:
        expected = {"QW300": "already", "QW35": "warning"}
        assert verdict.status == next(
            (s for prefix, s in expected.items() if verdict.code.startswith(prefix)), "refused"
        )
    assert path.name.partition("_")[0] in [code for code, _ in marks]


@pytest.mark.parametrize("path", REFUSED, ids=amp.name)
def test_a_refusal_is_one_sentence_with_something_to_do(path, beside):
    for verdict in amp.look_at(path.read_bytes(), beside).verdicts:
        assert verdict.message and "\n" not in verdict.message and verdict.message[-1] != "."
        assert verdict.status != "refused" or (verdict.hint and "\n" not in verdict.hint)


def test_every_code_that_refuses_has_a_file_that_shows_it():
    from quickwins_codemod.transform import all_transforms

    known = {c.code for t in all_transforms() if t.rule == "amp" for c in t.codes}
    refusing = {code for code in known if "QW310" <= code <= "QW349"}

    shown = {p.name.partition("_")[0] for p in REFUSED}
    assert {code for code in shown if "QW310" <= code <= "QW349"} == refusing


# -- the recorder sees what it is there for ----------------------------------------------------

LOOP = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for _ in range(2):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = criterion(model(torch.randn(8, 4)), torch.randn(8, 1))
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
"""
FAULTS = {
    "clip_grad_norm_ on scaled gradients": ("    scaler.unscale_(optimizer)\n", ""),
    "backward under autocast": ("    scaler.scale(loss)", "        scaler.scale(loss)"),
    "step on scaled gradients": ("scaler.step(optimizer)", "scaler.scale(loss); optimizer.step()"),
    "no update() after the last step": (
        "    scaler.update()\n", "    if _ == 0:\n        scaler.update()\n"
    ),
    "scaled gradients added to unscaled ones": (
        "    nn.utils", "    scaler.scale(model(torch.ones(1, 4)).sum()).backward()\n    nn.utils"
    ),
}


def test_the_recorder_finds_nothing_in_a_loop_that_is_right(tmp_path, monkeypatch):
    (tmp_path / "loop.py").write_text(LOOP)
    record = amp.train(tmp_path / "loop.py", monkeypatch)

    assert record.wrong == [] and record.forwards == record.losses == [True, True]
    assert (record.backwards, record.scaled, record.steps, record.updates) == (2, 2, 2, 2)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_recorder_finds_a_fault(fault, tmp_path, monkeypatch):
    old, new = FAULTS[fault]
    source = LOOP.replace(old, new)
    if fault == "step on scaled gradients":
        source = source.replace("    scaler.unscale_(optimizer)\n", "").replace("scaler.update()", "")
    assert source != LOOP
    (tmp_path / "loop.py").write_text(source)

    assert fault in amp.train(tmp_path / "loop.py", monkeypatch).wrong
