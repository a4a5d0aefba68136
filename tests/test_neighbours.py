"""What a script learns of its data loaders from the files that it imports."""

import os
from pathlib import Path

import pytest

from quickwins_codemod.pipeline import Context, process
from quickwins_codemod.script.neighbours import Neighbours
from quickwins_codemod.settings import Settings
from quickwins_codemod.verdict import FileOutcome

DATA = '''\
import torch
from torch.utils.data import DataLoader, IterableDataset
from somewhere import DataLoader as StrangeLoader


class Stream(IterableDataset):
    def __iter__(self):
        yield 1


class Data:
    def __init__(self, rows):
        self.train_loader = DataLoader(rows, batch_size=8)

    def test_loader(self):
        return DataLoader(self.rows)


def get_loaders(rows):
    train = DataLoader(rows, batch_size=8)
    return train, DataLoader(rows)


def get_loader(rows):
    return torch.utils.data.DataLoader(rows)


def get_stream():
    return DataLoader(Stream())


def get_strange(rows):
    return StrangeLoader(rows)


def one_of(rows, small):
    if small:
        return rows
    return DataLoader(rows)
'''
SCRIPT = '''\
import torch
{imports}


def main(model, rows, epochs):
    {made}
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(epochs):
        for batch in {loader}:
            optimizer.zero_grad()
            model(batch).backward()
            optimizer.step()
'''


def outcome(root: Path, made: str, loader: str, imports: str = "import data") -> FileOutcome:
    (root / "data.py").write_text(DATA)
    (root / "train.py").write_text(SCRIPT.format(imports=imports, made=made, loader=loader))
    found = process(root / "train.py", Context(root, root, Settings(select=("onecycle",))))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("made", "loader"),
    [
        pytest.param("train, test = data.get_loaders(rows)", "train", id="element of a tuple"),
        pytest.param("train = data.get_loader(rows)", "train", id="dotted name"),
        pytest.param("loaders = data.Data(rows)", "loaders.train_loader", id="attribute"),
        pytest.param("test = data.Data(rows).test_loader()", "test", id="method", marks=pytest.mark.xfail(
            reason="a chain of an instance and a method is not followed", strict=True)),
        pytest.param(
            "made = data.Data(rows)\n    test = made.test_loader()", "test", id="method of a variable"
        ),
    ],
)
def test_a_loader_made_in_another_file_has_a_length(tmp_path: Path, made: str, loader: str) -> None:
    found = outcome(tmp_path, made, loader)
    assert found.status == "changed", found.verdicts
    assert f"steps_per_epoch=len({loader})" in found.after.decode()


@pytest.mark.parametrize(
    ("made", "loader"),
    [
        pytest.param("train = data.get_stream()", "train", id="iterable dataset"),
        pytest.param("train = data.get_strange(rows)", "train", id="a loader of another package"),
        pytest.param("train = data.one_of(rows, True)", "train", id="not on every path"),
        pytest.param("train = data.missing(rows)", "train", id="no such function"),
    ],
)
def test_what_is_not_plainly_a_loader_is_refused(tmp_path: Path, made: str, loader: str) -> None:
    found = outcome(tmp_path, made, loader)
    assert found.status == "refused"
    assert [v.code for v in found.verdicts] == ["QW114"]


def test_a_relative_import_in_a_package(tmp_path: Path) -> None:
    found = outcome(tmp_path, "train = get_loader(rows)", "train", "from .data import get_loader")
    assert found.status == "changed"


def test_a_broken_neighbour_is_no_error(tmp_path: Path) -> None:
    outcome(tmp_path, "train = data.get_loader(rows)", "train")
    root = tmp_path / "other"
    root.mkdir()
    (root / "data.py").write_text("def get_loader(:\n")
    (root / "train.py").write_text((tmp_path / "train.py").read_text())
    found = process(root / "train.py", Context(root, root, Settings(select=("onecycle",))))
    assert [v.code for v in found.verdicts] == ["QW114"]


def test_nothing_outside_the_root_is_opened(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(DATA)
    root = tmp_path / "inside"
    root.mkdir()
    (root / "train.py").write_text(
        SCRIPT.format(
            imports="import sys\nfrom pathlib import Path\n"
            "sys.path.append(str(Path(__file__).resolve().parent.parent))\nimport data",
            made="train = data.get_loader(rows)",
            loader="train",
        )
    )
    found = process(root / "train.py", Context(root, root, Settings(select=("onecycle",))))
    assert [v.code for v in found.verdicts] == ["QW114"]


def test_a_pipe_beside_the_script_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    neighbours = Neighbours(tmp_path / "train.py", [tmp_path], tmp_path)
    assert not neighbours.mention("train")
    (tmp_path / "user.py").write_text("from train import fit\n")
    assert neighbours.mention("train", "fit")
