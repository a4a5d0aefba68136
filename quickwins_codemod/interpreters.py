"""Which Python runs the user's scripts: the one that is asked for, or the first that has torch.

The tool's own need not have torch: it may live in an environment of its own (pipx).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quickwins_codemod import __version__
from quickwins_codemod.trials import Environment

_ASK = """
import json, os, platform, sys
import torch
card = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
print(json.dumps([sys.version.split()[0], torch.__version__, card, platform.platform()]))
"""
_PATIENCE = 120


class InterpreterError(Exception):
    """No Python that can run the script; its text is one line for the user."""


@dataclass(frozen=True)
class Interpreter:
    """A Python with torch, and the machine as it sees it."""

    path: str
    environment: Environment


def find(asked: str | None, root: Path) -> Interpreter:
    """Return the Python to run scripts with. Raises InterpreterError."""
    if asked is not None:
        path = shutil.which(os.path.expanduser(asked))
        if path is None:
            raise InterpreterError(f"--python {asked}: no such program")
        found, why = _look(path)
        if found is None:
            raise InterpreterError(f"--python {asked}: cannot import torch ({why})")
        return found
    tried = []
    for path in dict.fromkeys(_candidates(root)):
        found, _ = _look(path)
        if found is not None:
            return found
        tried.append(path)
    raise InterpreterError(
        "no Python with torch was found"
        + (f" (tried {', '.join(tried)})" if tried else "")
        + "; activate the environment of your script, or name its Python by --python PATH"
    )


def _candidates(root: Path) -> Iterator[str]:
    inside = ("Scripts/python.exe", "python.exe") if os.name == "nt" else ("bin/python",)
    active = (os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"))
    for place in (*filter(None, active), root / ".venv", root / "venv"):
        for path in (Path(place, name) for name in inside):
            if path.is_file():
                yield str(path)
    for command in ("python", "python3"):
        found = shutil.which(command)
        if found is not None:
            yield found
    yield sys.executable


def _look(path: str) -> tuple[Interpreter | None, str]:
    """Ask a Python what it has; without torch, return the last line that it said."""
    try:
        done = subprocess.run(
            [path, "-c", _ASK], capture_output=True, text=True, timeout=_PATIENCE,
            stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
        python, torch, device, system = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, " ".join(str(error).split())
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines()
        return None, said[-1] if said else f"exit code {done.returncode}"
    environment = Environment(python, torch, device, os.cpu_count() or 0, system, __version__)
    return Interpreter(path, environment), ""
