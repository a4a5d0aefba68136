"""Test modules share helpers.py; pytest's importlib mode puts nothing on the path by itself."""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


class _Bar:
    """What a progress bar is to a script: something to iterate over and to enter."""

    def __init__(self, iterable=None, *args, **kwargs):
        self.iterable = iterable

    def __iter__(self):
        return iter(self.iterable)

    def __len__(self):
        return len(self.iterable)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def set_postfix(self, *args, **kwargs):
        return None


@pytest.fixture(autouse=True)
def tqdm_stands_in(monkeypatch):
    """A stand-in where tqdm is not installed: a fixture's script uses it, and nothing else."""
    if importlib.util.find_spec("tqdm") is None:
        module = types.ModuleType("tqdm")
        module.__spec__ = importlib.machinery.ModuleSpec("tqdm", None)  # torch asks for it
        module.tqdm, module.trange = _Bar, lambda *bounds, **kwargs: _Bar(range(*bounds))
        monkeypatch.setitem(sys.modules, "tqdm", module)
