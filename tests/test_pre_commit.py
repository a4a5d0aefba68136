"""The hooks under the real pre-commit, on a repository made for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod import bundle

pytest.importorskip("pre_commit")
pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = (
    "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml", "quickwins_codemod",
    "transforms", "runtime",
)  # fmt: skip
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
RUNTIME = " ".join(f"{bundle.PACKAGE}/{name}" for name in bundle.runtime_files())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of git and pre-commit that are the same on every machine."""
    home = tmp_path_factory.mktemp("home")
    hidden = ("PRE_COMMIT", "PYTHONPATH", "VIRTUAL_ENV", "SKIP")
    kept = {
        key: value for key, value in os.environ.items()
        if key not in hidden and not key.startswith("GIT_")
    }  # fmt: skip
    (home / "gitconfig").write_text(
        "[user]\nname = Test\nemail = test@example.org\n"
        "[init]\ndefaultBranch = main\n[commit]\ngpgsign = false\n"
        "[protocol \"file\"]\nallow = always\n"
    )
    return {
        **kept,
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "PRE_COMMIT_HOME": str(home / "pre-commit"),
        "PRE_COMMIT_COLOR": "never",
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), kept.get("PATH", "")]),
    }


@pytest.fixture(scope="module")
def hooks(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as a repository of hooks; a copy, so that uncommitted work is tested too."""
    copy = tmp_path_factory.mktemp("hooks") / "quickwins-codemod"
    copy.mkdir()
    for name in PACKAGE:
        if (ROOT / name).is_dir():
            junk = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=junk)
        else:
            shutil.copy(ROOT / name, copy / name)
    _git(copy, environment, "init", "-q")
    _git(copy, environment, "add", ".")
    _git(copy, environment, "commit", "-qm", "Hooks")
    return copy


class Repository:
    """A user's repository."""

    def __init__(self, path: Path, hooks: Path, environment: dict[str, str]) -> None:
        self.path, self.hooks, self.environment = path, hooks, environment
        self.git("init", "-q")

    def git(self, *words: str) -> str:
        return _git(self.path, self.environment, *words)

    def add(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.git("add", name)
        return path

    def try_repo(self, *words: str) -> tuple[int, str]:
        """Run `pre-commit try-repo`, which builds the hooks' environment anew."""
        return self.pre_commit("try-repo", str(self.hooks), *words)

    def run(self, hook: str, *words: str) -> tuple[int, str]:
        """Run one hook by a configuration file; the environment is built once for all tests."""
        self.configure(hook)
        return self.pre_commit("run", hook, *words)

    def configure(self, hook: str) -> None:
        revision = _git(self.hooks, self.environment, "rev-parse", "HEAD").strip()
        self.add(
            ".pre-commit-config.yaml",
            f"repos:\n- repo: {self.hooks}\n  rev: {revision}\n  hooks:\n  - id: {hook}\n",
        )

    def pre_commit(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", *words], cwd=self.path, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout


def _git(folder: Path, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(hooks: Path, environment: dict[str, str], tmp_path: Path) -> Repository:
    return Repository(tmp_path, hooks, environment)


# By try-repo, as somebody who looks for a hook would


def test_both_hooks_pass_over_a_repository_without_python(repository: Repository) -> None:
    repository.add("notes.txt", "nothing here\n")

    code, said = repository.try_repo("--all-files")

    assert code == 0, said
    assert said.count("Skipped") == 2


def test_check_fails_on_a_candidate_and_names_it(repository: Repository) -> None:
    script = repository.add("jobs/train.py", CANDIDATE)
    repository.add("tool.py", OTHER)

    code, said = repository.try_repo("quickwins-check", "--all-files")

    assert code == 1 and "quickwins check" in said and "Failed" in said
    assert "jobs/train.py:4:17: QW102 " in said and "tool.py:" not in said
    assert script.read_text() == CANDIDATE
    assert not (repository.path / "quickwins_runtime").exists()


def test_apply_fails_once_and_says_what_to_add(repository: Repository) -> None:
    script = repository.add("jobs/train.py", CANDIDATE)

    code, said = repository.try_repo("quickwins-apply")

    assert code == 1 and "Failed" in said, said
    (line,) = (line for line in said.splitlines() if "git add" in line)
    assert line.endswith(f"then: git add jobs/train.py {RUNTIME}"), line
    assert "OneCycle(" in script.read_text()

    subprocess.run(line[line.index("git add") :], shell=True, cwd=repository.path, check=True)
    code, said = repository.try_repo("quickwins-apply")

    assert code == 0 and "Passed" in said, said
    assert repository.git("status", "--porcelain").splitlines() == [
        "A  jobs/train.py", *(f"A  {path}" for path in RUNTIME.split()),
    ]  # fmt: skip


# By a configuration file, as in daily use


@pytest.mark.parametrize("hook", ["quickwins-check", "quickwins-apply"])
def test_a_file_that_is_no_candidate_passes(hook: str, repository: Repository) -> None:
    script = repository.add("tool.py", OTHER)

    code, said = repository.run(hook)

    assert code == 0 and "Passed" in said, said
    assert script.read_text() == OTHER


def test_apply_leaves_a_file_with_unstaged_edits_alone(repository: Repository) -> None:
    script = repository.add("train.py", CANDIDATE)
    edited = CANDIDATE + "# an edit that is not staged\n"
    script.write_text(edited)

    code, said = repository.run("quickwins-apply", "--files", "train.py")

    assert code == 1 and "QW007" in said and "Traceback" not in said, said
    assert script.read_text() == edited
    assert not (repository.path / "quickwins_runtime").exists()


def test_a_commit_is_held_back_until_the_runtime_is_added(repository: Repository) -> None:
    repository.add("train.py", CANDIDATE)
    repository.configure("quickwins-apply")
    repository.pre_commit("install")

    with pytest.raises(AssertionError) as held:
        repository.git("commit", "-qm", "Train")
    assert f"git add {RUNTIME} train.py" in str(held.value)

    repository.git("add", *RUNTIME.split(), "train.py")
    repository.git("commit", "-qm", "Train")
    assert len(repository.git("ls-files").splitlines()) == 2 + len(RUNTIME.split())


def test_unstaged_edits_survive_a_commit(repository: Repository) -> None:
    # pre-commit hides them while the hook runs, and takes the hook's work back where both meet.
    script = repository.add("train.py", CANDIDATE)
    repository.configure("quickwins-apply")
    edited = CANDIDATE.replace("import torch\n", "import torch\nimport math\n", 1)
    script.write_text(edited)

    code, said = repository.pre_commit("run")

    assert code == 1 and "Traceback" not in said, said
    assert "import math" in script.read_text()
