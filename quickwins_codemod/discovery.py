"""Which Python files a run looks at: walking folders as git sees them, taking files as named.

What git has excluded in `core.excludesFile` is not read, and the index is not either: a tracked
file that a `.gitignore` matches is left out, unless it is named.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

SUFFIXES = (".py", ".pyw")

#: The folder in which the tool keeps what is its own: records, and the journals of runs.
STATE = ".quickwins"

# Tool-made folders, skipped wherever a walk meets them, whatever .gitignore says.
SKIPPED = frozenset(
    (".git", ".hg", ".svn", "__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache")
    + (".ruff_cache", STATE, ".ipynb_checkpoints")
)

# The package that `apply` places, told by its first line; bundle.py writes both. They are spelled
# out here because rooms on one floor do not import each other.
_RUNTIME, _RUNTIME_START = "quickwins_runtime", b"# quickwins-codemod runtime "


class PathError(Exception):
    """A path or pattern on the command line that cannot be used; the message names it."""


class Problem(NamedTuple):
    """A path below the root that could not be looked at, and why."""

    path: Path
    code: str
    message: str


@dataclass(frozen=True)
class Found:
    """The files, absolute and sorted, each once; and what could not be looked at.

    states: the folders that hold a folder of the tool's own: on the way to the files, and from the
    root up to the top of its git repository.
    """

    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    states: list[Path] = field(default_factory=list)


def project_root(paths: Sequence[Path], cwd: Path) -> Path:
    """Return the root of a run: what reports are relative to and what is never left.

    It is the one directory that was given; else the current directory, if every path lies below
    it; else the deepest directory above them all.
    """
    here = os.path.realpath(cwd)
    given = [_absolute(path, here) for path in paths]
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in given]
    if len(given) == 1 and folders == given:
        return Path(given[0])
    if all(_is_below(folder, here) for folder in folders):
        return Path(here)
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        raise PathError("the paths lie on different drives; name those of one drive") from None


def find_python_files(paths: Sequence[Path], root: Path, exclude: Sequence[str]) -> Found:
    """Find the Python files at and below `paths`, none of them outside `root`.

    Folders are walked as `.gitignore` allows; files that are named are taken whatever it says.
    `exclude` holds patterns in .gitignore's syntax, relative to `root`, and holds for both.
    Raises PathError for a path that does not exist or lies outside `root`.
    """
    return _Finder(os.path.realpath(root), exclude).find(paths)


def folders_with_state(root: Path, above: bool = False) -> Iterator[Path]:
    """Find the folders at and below a root that hold a folder of the tool's own, in a fixed order.

    above: also those above it, up to the top of its git repository.
    """
    if above:
        yield from (folder for folder in _with_state_above(str(root)) if folder != root)
    for folder, folders, files in os.walk(root):
        if "pyvenv.cfg" in files and Path(folder) != root:
            folders.clear()
            continue
        if STATE in folders:
            yield Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED and name != "wandb"
        )


def _has_state(folder: Path) -> bool:
    return os.path.lexists(folder / STATE)


def _with_state_above(root: str) -> Iterator[Path]:
    for folder in (Path(root), *Path(root).parents):
        if _has_state(folder):
            yield folder
        if os.path.lexists(folder / ".git"):
            return


class _Finder:
    def __init__(self, root: str, exclude: Sequence[str]) -> None:
        self.root = root
        lines = [f"/{line[2:]}" if line.startswith("./") else line for line in exclude]
        self.exclude = _Rules(_cut(root), _compile(lines, strict=True), None)
        self.files: set[str] = set()
        self.links: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.states: list[Path] = []

    def find(self, paths: Sequence[Path]) -> Found:
        for given in paths:
            path = _absolute(given, os.getcwd())
            if not _is_below(path, self.root):
                raise PathError(f"{given}: lies outside {self.root}")
            if self._is_excluded(path) or _in_runtime(path):
                continue
            if os.path.isdir(path):
                self._walk(path)
            else:
                self._take_named(path)
        # A link is a second name: it is taken only when its target was not found by itself.
        named = {link for target, link in self.links.items() if target not in self.files}
        files = sorted(self.files | named, key=lambda path: path.split(os.sep))
        return Found([Path(path) for path in files], self.problems, self._states(paths))

    def _states(self, paths: Sequence[Path]) -> list[Path]:
        """Put those above the root and between it and the paths before those that were met."""
        named = [Path(_absolute(path, os.getcwd())) for path in paths]
        between = [p for path in named for p in path.parents if _is_below(str(p), self.root)]
        between = [folder for folder in dict.fromkeys(between) if _has_state(folder)]
        return list(dict.fromkeys([*_with_state_above(self.root), *between, *self.states]))

    def _take_named(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            # A broken or circular link, or a folder on the way that may not be entered.
            self._report(path, f"cannot be read: {error.strerror}")
            return
        if not stat.S_ISREG(mode):
            self._report(path, "is not a regular file")
        elif not os.path.islink(path):
            self.files.add(path)
        elif not self._take_link(path):
            self._report(path, f"is a link to a file outside {self.root}")

    def _take_link(self, path: str) -> bool:
        target = os.path.realpath(path)
        if not os.path.isfile(target) or not _is_below(target, self.root):
            return False
        if not _in_runtime(target):
            self.links[target] = min(path, self.links.get(target, path))
        return True

    def _walk(self, start: str) -> None:
        # A folder that was named is walked even if its parents' .gitignore would hide it.
        stack = [(start, _rules_above(start, self.root))]
        while stack:
            folder, rules = stack.pop()
            try:
                with os.scandir(folder) as entries:
                    listing = list(entries)
            except OSError as error:
                self._report(folder, f"cannot be listed: {error.strerror}")
                continue
            names = {entry.name for entry in listing}
            if folder != start and "pyvenv.cfg" in names:
                continue
            if STATE in names:
                self.states.append(Path(folder))
            rules = _rules_at(folder, names, rules)
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    if not self._is_pruned(entry.name, entry.path, rules):
                        stack.append((entry.path, rules))
                elif entry.name.endswith(SUFFIXES):
                    self._take_found(entry, rules)

    def _is_pruned(self, name: str, path: str, rules: _Rules | None) -> bool:
        return (
            name in SKIPPED
            or (name == _RUNTIME and _is_runtime(path))
            or (rules is not None and rules.hide(path, "folders"))
            or self.exclude.hide(path, "folders")
        )

    def _take_found(self, entry: os.DirEntry[str], rules: _Rules | None) -> None:
        if rules is not None and rules.hide(entry.path, "python_files"):
            return
        if self.exclude.hide(entry.path, "python_files"):
            return
        if entry.is_file(follow_symlinks=False):
            self.files.add(entry.path)
        elif entry.is_symlink():
            self._take_link(entry.path)

    def _is_excluded(self, path: str) -> bool:
        # A named path is not reached through its parents, so these are asked one by one.
        above = [str(parent) for parent in Path(path).parents if _is_below(str(parent), self.root)]
        if any(self.exclude.hide(parent, "folders") for parent in above):
            return True
        return self.exclude.hide(path, "folders" if os.path.isdir(path) else "files")

    def _report(self, path: str, message: str) -> None:
        self.problems.append(Problem(Path(path), "QW003", message))


@dataclass(frozen=True)
class _Rule:
    hides: bool
    folders_only: bool
    search: Callable[[str], re.Match[str] | None]
    last: str

    def matches(self, path: str) -> bool:
        # pathspec's patterns also match whatever lies below a match, and then capture the slash
        # after it. Git asks of each folder by itself; so does the walk.
        match = self.search(path)
        return match is not None and match.lastindex is None


class _Rules:
    """The patterns of one folder's .gitignore, and those in force above it.

    pathspec compiles the single patterns. Which of several wins is decided here, since its
    GitIgnoreSpec answers for files and differs from git for folders (`*` and then `!*/`).
    """

    def __init__(self, cut: int, rules: Iterable[_Rule], above: _Rules | None) -> None:
        self.cut, self.above = cut, above
        self.folders = list(rules)[::-1]
        self.files = [rule for rule in self.folders if not rule.folders_only]
        # Most patterns end in a letter that no Python file's name ends in.
        self.python_files = [rule for rule in self.files if rule.last in "yw*?]\\"]

    def hide(self, path: str, kind: Literal["folders", "files", "python_files"]) -> bool:
        """Say whether a path of that kind is ignored, taking its parents as not ignored."""
        level: _Rules | None = self
        while level is not None:
            relative = path[level.cut :]
            rules: list[_Rule] = getattr(level, kind)
            for rule in rules:
                if relative and rule.matches(relative):
                    return rule.hides
            level = level.above
        return False


def _compile(lines: Iterable[str], strict: bool = False) -> Iterator[_Rule]:
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        return
    from pathspec import GitIgnoreSpec  # 20 ms that a run without patterns saves

    for line in lines:
        # Without its last slash a pattern matches the same folders, not only what is in them.
        text = line.rstrip()
        folders_only = text.endswith("/") and text.strip("!/") != ""
        try:
            pattern = GitIgnoreSpec.from_lines([text[:-1] if folders_only else line]).patterns[0]
        except ValueError:
            if strict:
                raise PathError(f"--exclude: {line!r} is not a pattern") from None
            continue  # as git does
        if pattern.include is not None and pattern.regex is not None:
            yield _Rule(pattern.include, folders_only, pattern.regex.search, text[-1])


def _rules_above(folder: str, root: str) -> _Rules | None:
    """Gather what is in force in `folder` from the git top level (or the root) down to it."""
    above = [str(parent) for parent in Path(folder).parents]
    top = next((path for path in (folder, *above) if os.path.lexists(f"{path}/.git")), root)
    rules = None
    for path in reversed([path for path in above if _is_below(path, top)]):
        rules = _rules_at(path, {".git", ".gitignore"}, rules)
    return rules


def _rules_at(folder: str, names: set[str], above: _Rules | None) -> _Rules | None:
    """Add a folder's own patterns; a repository within a repository starts anew."""
    if ".git" in names and os.path.lexists(f"{folder}/.git"):
        lines = _lines(_exclude_file(folder))
        above = _Rules(_cut(folder), _compile(lines), None) if lines else None
    if ".gitignore" in names and not os.path.islink(f"{folder}/.gitignore"):  # as git does
        lines = _lines(f"{folder}/.gitignore")
        above = _Rules(_cut(folder), _compile(lines), above) if lines else above
    return above


def _exclude_file(top: str) -> str:
    """Return .git/info/exclude, which linked work trees keep in the main one."""
    git = f"{top}/.git"
    if os.path.isfile(git):
        pointer = "".join(_lines(git)[:1])
        git = os.path.join(top, pointer.removeprefix("gitdir: "))
        git = os.path.join(git, "".join(_lines(f"{git}/commondir")[:1]))
    return f"{git}/info/exclude"


def _lines(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except OSError:
        return []
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _absolute(path: Path, cwd: str) -> str:
    """Make a path absolute: a folder as it really is, a file under the name that was given."""
    full = os.path.join(cwd, path)
    if not os.path.lexists(full):
        raise PathError(f"{path}: no such file or directory")
    if os.path.isdir(full):
        return os.path.realpath(full)
    return os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _cut(folder: str) -> int:
    return len(folder.rstrip(os.sep)) + 1


def _in_runtime(path: str) -> bool:
    if _RUNTIME not in path:
        return False
    above = (Path(path), *Path(path).parents)
    return any(folder.name == _RUNTIME and _is_runtime(str(folder)) for folder in above)


def _is_runtime(folder: str) -> bool:
    try:
        with open(f"{folder}/__init__.py", "rb") as file:
            return file.read(len(_RUNTIME_START)) == _RUNTIME_START
    except OSError:
        return False
