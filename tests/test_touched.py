"""A changed file says which of its lines were edited for which verdict."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from helpers import SAMPLE, look_at

from quickwins_codemod import repository
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.verdict import FileOutcome

SCRIPT = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(torch.randn(256, 8), torch.randn(256, 1))
loader = DataLoader(data, batch_size=32, shuffle=True)
model = nn.Linear(8, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

for epoch in range(10):
    for x, y in loader:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
"""


def test_each_edit_is_at_its_lines(tmp_path: Path) -> None:
    outcome = look_at(SCRIPT, tmp_path)
    (site,) = [t for t in outcome.touched if not t.imports]
    assert [v.code for v in site.verdicts] == ["QW101"]
    assert site.lines == {9, 16, 17}
    (imports,) = [t for t in outcome.touched if t.imports]
    assert imports.verdicts == site.verdicts and imports.lines == {3}


def test_a_file_that_stays_has_none(tmp_path: Path) -> None:
    assert look_at("optimizer.step()\n", tmp_path).touched == ()


@pytest.fixture(scope="module")
def sample() -> list[FileOutcome]:
    rules = {t.rule: t.options_type() for t in all_transforms()}
    result = repository.run([SAMPLE], SAMPLE, Settings(rules=rules))
    return result.with_status("changed")


def test_every_change_of_the_sample_has_its_reason(sample: list[FileOutcome]) -> None:
    assert sample
    for outcome in sample:
        old, new = ((text or b"").split(b"\n") for text in (outcome.before, outcome.after))
        for tag, first, last, _, _ in difflib.SequenceMatcher(None, old, new).get_opcodes():
            lines = range(first, last + 2) if first == last else range(first + 1, last + 1)
            touched = [t for t in outcome.touched if t.lines & set(lines)]
            assert tag == "equal" or touched, f"{outcome.path}:{first + 1}"


def test_every_applied_verdict_touches_a_line(sample: list[FileOutcome]) -> None:
    for outcome in sample:
        told = {v for t in outcome.touched if t.lines and not t.imports for v in t.verdicts}
        assert told == {v for v in outcome.verdicts if v.status == "applied"}
