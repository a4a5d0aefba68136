"""Which files differ from the git index, whatever index the current command is about."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from quickwins_codemod.disk.atomic import WriteError

_BATCH = 200  # paths to one call of git; the system bounds the length of a command line
_GIT_VARIABLES = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_COMMON_DIR")


def unstaged(root: Path, paths: Sequence[Path]) -> set[Path]:
    """Return those of the paths whose work tree differs from the git index.

    Staged and untracked files do not; without a git work tree, or without git, none does. Raises
    WriteError when there is a work tree and git cannot tell.
    """
    trees: defaultdict[Path, dict[str, Path]] = defaultdict(dict)
    current = work_tree(Path.cwd())
    if "GIT_DIR" in os.environ:  # git then takes the current directory for the top level
        current = Path(os.path.realpath(os.environ.get("GIT_WORK_TREE", os.getcwd())))
    for path in paths:
        real = Path(os.path.realpath(root / path))
        tree = work_tree(real.parent)
        if tree is None and current is not None and real.is_relative_to(current):
            tree = current
        if tree is not None:
            trees[tree][real.relative_to(tree).as_posix()] = path
    found = set()
    for tree, names in trees.items():
        # A hook's variables name the index of the commit being made, of its own repository only.
        hidden = () if tree == current else _GIT_VARIABLES
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        if "GIT_DIR" in environment:  # relative to where we are, and git will run elsewhere
            environment["GIT_DIR"] = os.path.abspath(environment["GIT_DIR"])
        if not _is_repository(tree, environment):
            continue
        for batch in _batches(list(names)):
            found |= {names[name] for name in _differing(tree, batch, environment) & names.keys()}
    return found


def _is_repository(tree: Path, environment: dict[str, str]) -> bool:
    # Asked first: where git finds no repository, `git diff A B` compares A with B.
    try:
        _git(tree, environment, "rev-parse", "--git-dir")
    except FileNotFoundError:  # git is not installed
        return False
    except WriteError as error:
        if "not a git repository" in str(error) and "GIT_DIR" not in environment:
            return False
        raise
    return True


def _differing(tree: Path, names: list[str], environment: dict[str, str]) -> set[str]:
    options = ["--name-only", "-z", "--relative", "--no-ext-diff", "--no-renames"]
    output = _git(tree, environment, "diff", *options, "--ignore-submodules", "--", *names)
    return {os.fsdecode(name) for name in output.split(b"\0") if name}


def _git(tree: Path, environment: dict[str, str], *words: str) -> bytes:
    command = ["git", "--literal-pathspecs", "-c", "core.fsmonitor=false"]
    command += ["-c", "diff.autoRefreshIndex=true", *words]
    # No optional lock: a hook may hold the index, and looking should change nothing.
    environment = {**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    if done.returncode == 0:
        return done.stdout
    message = os.fsdecode(done.stderr).strip().partition("\n")[0]
    raise WriteError(
        f"git cannot tell which files have unstaged changes ({message});"
        " --allow-dirty goes on without asking it"
    )


def work_tree(folder: Path) -> Path | None:
    """Return the top level of the git work tree that a folder is in."""
    folder = Path(os.path.realpath(folder))
    return next((p for p in (folder, *folder.parents) if os.path.lexists(p / ".git")), None)


def _batches(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _BATCH):
        yield names[start : start + _BATCH]
