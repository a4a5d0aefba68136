"""What tests with repositories share: git without the user's settings, and two files to commit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CANDIDATE = """\
import torch

def train(model, loader, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()

if __name__ == "__main__":
    data = torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1))
    train(torch.nn.Linear(2, 1), torch.utils.data.DataLoader(data), 3)
"""
OTHER = "def double(number):\n    return 2 * number\n"


def git(folder: Path, *words: str) -> str:
    """Run git and return what it printed."""
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *words]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def hide_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git see neither the user's configuration nor the repository that a hook works for."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
