"""Validation and test under autocast, where `eval = true` asks for it, and only then.

A new pair is `fixtures/pairs/amp/eval/NAME.in.py` and `NAME.out.py`: before, and after with both
mixed precision and the option.
"""

import json

import amp_helpers as amp
import pytest
from click.testing import CliRunner

from quickwins_codemod.cli import build
from quickwins_codemod.transform import all_transforms

torch = pytest.importorskip("torch")

INPUTS = sorted((amp.PAIRS / "eval").glob("*.in.py"))
#: Pairs of training that also evaluate the model which they train.
EVALUATING = ("plain_loop", "tabs", "train_function", "trainer_class", "eval_in_the_loop")
#: Pairs that run another model without gradient, or none.
NOT_EVALUATING = ("teacher", "ema_weights", "clip", "two_models")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return amp.place_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.mark.parametrize("path", INPUTS, ids=amp.name)
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = amp.look_at(path.read_bytes(), tmp_path, eval=True)

    assert outcome.after == amp.output(path).read_bytes(), amp.said(outcome)
    assert set(amp.codes(outcome)) == {"QW301", "QW307"}


@pytest.mark.parametrize("path", INPUTS, ids=amp.name)
def test_nothing_is_left_to_do_with_the_option_or_without(path, tmp_path):
    for asked in (True, False):
        again = amp.look_at(amp.output(path).read_bytes(), tmp_path, eval=asked)

        assert again.after is None, again.diff()
        assert set(amp.codes(again)) == {"QW300"}


@pytest.mark.parametrize("path", INPUTS, ids=amp.name)
def test_a_run_with_the_option_adds_it_to_a_run_without(path, tmp_path):
    first = amp.look_at(path.read_bytes(), tmp_path)
    second = amp.look_at(first.after, tmp_path, eval=True)

    assert set(amp.codes(first)) == {"QW301"}
    assert set(amp.codes(second)) == {"QW300", "QW307"}
    assert second.after == amp.output(path).read_bytes()


@pytest.mark.parametrize("precision", ["off", "fp16", "bf16"])
@pytest.mark.parametrize("path", INPUTS, ids=amp.name)
def test_evaluates_under_autocast_and_hands_on_full_precision(
    path, precision, runtime, monkeypatch, capsys
):
    before = amp.train(path, monkeypatch)
    printed = capsys.readouterr().out
    after = amp.train(amp.output(path), monkeypatch, precision, runtime)
    on = precision != "off"

    assert after.wrong == []
    assert set(after.forwards) == set(after.losses) == {on}
    # the model that nothing trains stays in full precision
    others = len(after.evaluations) // 2 if "frozen" in path.read_text("utf-8") else 0
    assert len(after.evaluations) == len(before.evaluations) > 0
    assert sum(after.evaluations) == (len(after.evaluations) - others if on else 0)
    if not on:
        assert capsys.readouterr().out == printed
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            assert torch.equal(old, new)


@pytest.mark.parametrize("name", EVALUATING)
@pytest.mark.parametrize("precision", ["off", "fp16"])
def test_the_pairs_of_training_may_evaluate_in_half_precision_too(
    name, precision, runtime, tmp_path, monkeypatch, capsys
):
    outcome = amp.look_at((amp.PAIRS / f"{name}.in.py").read_bytes(), tmp_path, eval=True)
    assert "QW307" in amp.codes(outcome, "applied"), amp.said(outcome)
    again = amp.look_at(outcome.after, tmp_path, eval=True)
    assert again.after is None and amp.codes(again) == ["QW300"]

    (tmp_path / "both.py").write_bytes(outcome.after)
    record = amp.train(tmp_path / "both.py", monkeypatch, precision, runtime)
    assert record.wrong == [] and record.evaluations
    assert set(record.evaluations) == {precision != "off"}


@pytest.mark.parametrize("name", NOT_EVALUATING)
def test_other_models_and_plain_training_are_as_without_the_option(name, tmp_path):
    path = amp.PAIRS / f"{name}.in.py"
    outcome = amp.look_at(path.read_bytes(), tmp_path, eval=True)

    assert outcome.after == amp.output(path).read_bytes(), outcome.diff()


@pytest.mark.parametrize("name", ["existing_unscale_missing", "existing_old_names"])
def test_a_script_with_its_own_mixed_precision_keeps_its_evaluation(name, tmp_path):
    source = (amp.PAIRS / f"{name}.in.py").read_text("utf-8")
    source += "    with torch.no_grad():\n        print(model(x.to(device)).cpu().numpy().shape)\n"
    outcome = amp.look_at(source, tmp_path, eval=True)

    assert outcome.after is not None and "QW307" not in amp.codes(outcome)


LOOP = """\
import torch
from torch import nn

device = torch.device("cpu")
x, y = torch.randn(64, 4), torch.rand(64, 1).round()
model = nn.Linear(4, 1).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(3):
    for i in range(4):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
"""
LEFT = {
    "BCELoss in the statement of the forward pass": """
    with torch.no_grad():
        nn.functional.binary_cross_entropy(model(x.to(device)).sigmoid(), y.to(device))
""",
    "several values, of which one goes on": """
    kept = []
    with torch.no_grad():
        scores, places = model(x.to(device)).split(32)
        kept.append(places)
""",
    "a function that may return anything": """
    def accuracy(network, batches):
        return [network(b.to(device)).mean().item() for b in batches]
    with torch.no_grad():
        kept = []
        kept.append(accuracy(model, [x]))
""",
    "a function with a loop of its own": """
    def accuracy(network, batches):
        total = 0.0
        for b in batches:
            total += network(b.to(device)).mean().item()
        return total
    with torch.no_grad():
        print(accuracy(model, [x]))
""",
    "two statements of which one line is made": """
    with torch.no_grad():
        p = model(x.to(device)); print(p.mean().item())
""",
}


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_in_full_precision_is_named(name, tmp_path):
    outcome = amp.look_at(LOOP + LEFT[name], tmp_path, eval=True)

    assert amp.codes(outcome) == ["QW301", "QW356"]
    assert outcome.after.decode().endswith(LEFT[name])
    assert amp.codes(amp.look_at(LOOP + LEFT[name], tmp_path)) == ["QW301"]


PLACES = """
    with torch.no_grad():
        outputs = model(x.to(device))
        _, first = torch.max(outputs, 1)
        second = outputs.max(1)[1]
        third = outputs.topk(1).indices
        if epoch == 0:
            print(first.sum())
        elif epoch == 1:
            outputs = model(x[:8].to(device))
            print(outputs.argmax())
        else:
            print(outputs.shape)
"""


def test_places_of_scores_are_no_values(tmp_path):
    """Nothing that goes on is in half precision, so nothing is converted."""
    outcome = amp.look_at(LOOP + PLACES, tmp_path, eval=True)
    after = outcome.after.decode()

    assert amp.codes(outcome).count("QW307") == 2, amp.said(outcome)
    assert ".float()" not in after


def test_a_function_called_in_training_is_not_evaluation(tmp_path):
    """A model under no_grad beside the backward pass of the same batch is part of the step."""
    source = LOOP.replace(
        "        loss = ", "        with torch.no_grad():\n            wanted = model(x.to(device))\n"
        "        loss = "
    ).replace("y.to(device)", "wanted")
    with_it = amp.look_at(source, tmp_path, eval=True)

    assert with_it.after == amp.look_at(source, tmp_path).after is not None


def test_the_option_is_read_from_the_configuration_and_the_command_line(tmp_path):
    source = LOOP + "    with torch.no_grad():\n        print(model(x.to(device)).mean().item())\n"
    (tmp_path / "train.py").write_text(source)

    def applied(*flags):
        result = CliRunner().invoke(
            build(all_transforms()),
            ["diff", "--format", "json", "--select", "amp", *flags, str(tmp_path)],
        )
        assert result.exit_code == 0, result.output[-400:]
        files = json.loads(result.stdout)["files"]
        return {v["code"] for f in files for v in f["verdicts"] if v["status"] == "applied"}

    assert "QW307" not in applied()
    assert "QW307" in applied("--eval")
    (tmp_path / "pyproject.toml").write_text("[tool.quickwins.amp]\neval = true\n")
    assert "QW307" in applied()
    assert "QW307" not in applied("--no-eval")
