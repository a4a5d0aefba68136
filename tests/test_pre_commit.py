"""The hooks under the real pre-commit, on a repository made for the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from git_helpers import CANDIDATE, OTHER

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

    def __init__(
        self, path: Path, hooks: Path, environment: dict[str, str], new: bool = True
    ) -> None:
        self.path, self.hooks, self.environment = path, hooks, environment
        if new:
            self.git("init", "-q")

    def at(self, path: Path) -> Repository:
        """Another work tree with the same settings."""
        return Repository(path, self.hooks, self.environment, new=False)

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

    def configure(self, hook: str, *more: str) -> None:
        revision = _git(self.hooks, self.environment, "rev-parse", "HEAD").strip()
        lines = "".join(f"    {line}\n" for line in more)
        self.add(
            ".pre-commit-config.yaml",
            f"repos:\n- repo: {self.hooks}\n  rev: {revision}\n  hooks:\n  - id: {hook}\n{lines}",
        )

    def installed(self, hook: str) -> Repository:
        """This repository, with a hook that git runs at each commit."""
        self.configure(hook)
        self.git("commit", "-qm", "Configure the hook")
        code, said = self.pre_commit("install")
        assert code == 0, said
        return self

    def commit(self, *words: str, within: str = ".") -> tuple[int, str]:
        done = subprocess.run(
            ["git", "commit", "-m", "Work", *words], cwd=self.path / within, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def pre_commit(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", *words], cwd=self.path, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout


def stage_line(said: str) -> str:
    """The `git add` that a hook prints."""
    (line,) = (line for line in said.splitlines() if "git add" in line)
    return line[line.index("git add") :]


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


# What git and pre-commit hand over


def test_names_that_a_command_line_could_take_for_something_else(repository: Repository) -> None:
    names = ["-train.py", "a b.py", "jobs/naïve.py", "train.pyw", "--help.py"]
    if os.name != "nt":
        names.append("two\nlines.py")
    for name in names:
        repository.path.joinpath(name).parent.mkdir(exist_ok=True)
        repository.path.joinpath(name).write_text(CANDIDATE)
        repository.git("add", "--", name)

    code, said = repository.run("quickwins-check")

    assert code == 1 and said.count("QW102") == len(names), said


def test_flags_of_ones_own(repository: Repository) -> None:
    repository.add("train.py", CANDIDATE)
    repository.configure("quickwins-check", "args: [--select, amp, --]")
    code, said = repository.pre_commit("run", "quickwins-check")
    assert code == 0 and "Passed" in said, said
    repository.configure("quickwins-check", "args: [--select, onecycle, --]")
    code, said = repository.pre_commit("run", "quickwins-check")
    assert code == 1 and "QW102" in said, said


def test_what_is_no_script_is_not_handed_over(repository: Repository) -> None:
    for name in ("train.pyi", "notes.md", "quickwins_runtime/own.py"):
        repository.add(name, CANDIDATE)
    if os.name != "nt":
        (repository.path / "link.py").symlink_to("train.pyi")
        repository.git("add", "link.py")

    code, said = repository.run("quickwins-check", "--all-files")

    assert code == 0 and "Skipped" in said, said


def test_all_files_as_a_server_runs_it(repository: Repository) -> None:
    repository.add("jobs/train.py", CANDIDATE)
    repository.add("tool.py", OTHER)
    repository.configure("quickwins-check")
    repository.git("commit", "-qm", "Work")

    code, said = repository.pre_commit("run", "--all-files", "--show-diff-on-failure")

    assert code == 1 and said.count("QW102") == 1 and "jobs/train.py:4:17" in said, said


def test_a_renamed_and_a_deleted_file(repository: Repository) -> None:
    repository.add("train.py", CANDIDATE)
    repository.add("old.py", CANDIDATE)
    repository.installed("quickwins-check")
    repository.git("mv", "train.py", "renamed.py")
    repository.git("rm", "-q", "old.py")

    code, said = repository.commit()

    assert code == 1 and "renamed.py:4:17" in said and "old.py" not in said, said
    repository.git("rm", "-qf", "renamed.py")
    code, said = repository.commit()
    assert code == 0, said


def test_a_commit_from_a_folder_places_the_runtime_at_the_top(repository: Repository) -> None:
    repository.installed("quickwins-apply").add("jobs/films/train.py", CANDIDATE)

    code, said = repository.commit(within="jobs/films")

    assert code == 1 and stage_line(said) == f"git add jobs/films/train.py {RUNTIME}", said
    subprocess.run(stage_line(said), shell=True, cwd=repository.path, check=True)
    code, said = repository.commit(within="jobs/films")
    assert code == 0, said


def test_commit_all(repository: Repository) -> None:
    repository.add("train.py", OTHER)
    repository.installed("quickwins-apply")
    (repository.path / "train.py").write_text(CANDIDATE)

    code, said = repository.commit("-a")
    assert code == 1 and "OneCycle(" in (repository.path / "train.py").read_text(), said
    repository.git("add", *RUNTIME.split())
    code, said = repository.commit("-a")

    assert code == 0 and repository.git("status", "--porcelain") == "", said


def test_commit_of_one_file_beside_another_that_is_staged(repository: Repository) -> None:
    # git then hands the hook an index of its own, in which the other file is as it was.
    repository.add("train.py", OTHER)
    repository.add("other.py", OTHER)
    repository.installed("quickwins-apply")
    repository.add("other.py", CANDIDATE)
    (repository.path / "train.py").write_text(CANDIDATE)

    code, said = repository.commit("train.py")

    assert code == 1 and "git add" in said and "QW007" not in said, said
    assert "OneCycle(" in (repository.path / "train.py").read_text()
    assert (repository.path / "other.py").read_text() == CANDIDATE


def test_a_part_of_a_file_is_staged(repository: Repository) -> None:
    # pre-commit hides what is not staged, so the hook judges what will be committed.
    script = repository.add("train.py", CANDIDATE)
    repository.installed("quickwins-check")
    script.write_text(CANDIDATE.replace("import torch\n", "import math\n", 1))
    repository.add("tool.py", OTHER)

    code, said = repository.commit()
    assert code == 0, "the candidate is not in this commit"
    script.write_text("")
    repository.git("add", "train.py")
    script.write_text(CANDIDATE)
    code, said = repository.commit()

    assert code == 0 and script.read_text() == CANDIDATE, said


def test_a_file_that_is_only_announced(repository: Repository) -> None:
    repository.installed("quickwins-apply").add("tool.py", OTHER)
    script = repository.path / "train.py"
    script.write_text(CANDIDATE)
    repository.git("add", "--intent-to-add", "train.py")

    code, said = repository.commit()

    assert code == 0 and script.read_text() == CANDIDATE, said
    code, said = repository.pre_commit("run", "--files", "train.py")
    assert code == 1 and "QW007" in said and script.read_text() == CANDIDATE, said


def test_a_merge_with_a_conflict_that_was_solved(repository: Repository) -> None:
    repository.add("train.py", "a = 1\n")
    repository.installed("quickwins-check")
    repository.git("switch", "-qc", "side")
    repository.add("train.py", "a = 2\n")
    repository.commit()
    repository.git("switch", "-q", "main")
    repository.add("train.py", "a = 3\n")
    repository.commit()
    with pytest.raises(AssertionError):
        repository.git("merge", "-q", "side")

    code, said = repository.commit()
    assert code != 0 and "Traceback" not in said, "git itself holds it back"
    repository.add("train.py", CANDIDATE)
    code, said = repository.commit()
    assert code == 1 and "train.py:4:17: QW102" in said, said
    repository.add("train.py", OTHER)
    code, said = repository.commit()
    assert code == 0, said


def test_in_a_work_tree_of_its_own(repository: Repository, tmp_path_factory: Any) -> None:
    repository.installed("quickwins-apply")
    folder = tmp_path_factory.mktemp("linked") / "tree"
    repository.git("worktree", "add", "-q", str(folder), "-b", "side")
    linked = repository.at(folder)
    linked.add("train.py", CANDIDATE)

    code, said = linked.commit()

    assert code == 1 and stage_line(said) == f"git add {RUNTIME} train.py", said
    assert not (repository.path / "quickwins_runtime").exists()
    subprocess.run(stage_line(said), shell=True, cwd=folder, check=True)
    code, said = linked.commit()
    assert code == 0 and linked.git("status", "--porcelain") == "", said


def test_in_a_submodule(repository: Repository, tmp_path_factory: Any) -> None:
    origin = Repository(
        tmp_path_factory.mktemp("origin"), repository.hooks, repository.environment
    )
    origin.installed("quickwins-apply")
    repository.git("submodule", "add", "-q", str(origin.path), "parts")
    inner = repository.at(repository.path / "parts")
    inner.pre_commit("install")
    inner.add("jobs/train.py", CANDIDATE)

    code, said = inner.commit(within="jobs")

    assert code == 1 and stage_line(said) == f"git add jobs/train.py {RUNTIME}", said
    assert (inner.path / "quickwins_runtime").is_dir()
    assert not (repository.path / "quickwins_runtime").exists()


# Without pre-commit


def hook_of_the_readme() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```sh\n(#!/bin/sh\n.*?)^```$", readme, re.M | re.S)
    return recipe


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_the_plain_hook_of_the_readme(repository: Repository) -> None:
    repository.add("notes.txt", "nothing here\n")
    hook = repository.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(hook_of_the_readme())
    hook.chmod(0o755)

    code, said = repository.commit()
    assert code == 0 and "quickwins" not in said and "Python file" not in said, said
    repository.add("a b/-tool.py", OTHER)
    code, said = repository.commit()
    assert code == 0 and "1 Python file, 0 candidates" in said, said
    repository.add("a b/train.py", CANDIDATE)
    repository.git("rm", "-q", "a b/-tool.py")
    code, said = repository.commit(within="a b")
    assert code == 1 and "a b/train.py:4:17: QW102" in said, said
