"""The console command: `check` and `apply` of files that no rule can apply to end here at once.

A hook runs for each commit, and most commits hold no training script. So this looks at the bytes of
the named files before anything else is imported (click, the rules, their options); where one of
them might need more than the word that there is nothing to do, the command line proper
(`cli.py`) starts from the beginning. What is printed is the same on both ways.
"""

import os
import stat
import sys

from quickwins_codemod import sieve

#: Where these stand in a path or in the environment, the command line proper is to judge.
_RUNTIME, _COMPLETION = "quickwins_runtime", "_QUICKWINS_COMPLETE"
#: In a pyproject.toml: it may have a `[tool.quickwins]`, spelled out or with TOML's escapes.
_CONFIGURES = (b"quickwins", b"\\u", b"\\U", b"\\x")
#: What a run that was killed leaves in `.quickwins/`; the next command takes it back.
_KILLED = {"pending", "new", "undone", "trash"}


def main() -> None:
    """Run the command line and exit with its code (the console script)."""
    try:
        arguments = sys.argv[1:]
        if nothing_to_do(arguments):
            sys.exit(_say(arguments))
        from quickwins_codemod import cli

        cli.main()
    except KeyboardInterrupt:  # before the command line proper was there to take it
        print("quickwins: interrupted", file=sys.stderr)
        sys.exit(130)


def nothing_to_do(arguments: list[str]) -> bool:
    """Tell whether this is `check` or `apply` of files that can be ruled out by their bytes.

    True is certain, but for one thing: a pyproject.toml that is broken and does not speak of
    quickwins is not noticed then.
    """
    if arguments[:1] not in (["check"], ["apply"]) or _COMPLETION in os.environ:
        return False
    paths = _paths(arguments)
    if not paths or None in (sys.stdout, sys.stderr):
        return False
    try:
        return _are_plain(paths) and not _has_a_say(paths) and _are_ruled_out(paths)
    except (OSError, ValueError):  # ValueError: NUL in a path
        return False


def _paths(arguments: list[str]) -> list[str]:
    """The paths of a command without flags, none where there is a flag."""
    if arguments[1:2] == ["--"]:
        return arguments[2:]
    return [] if any(word.startswith("-") for word in arguments) else arguments[1:]


def _are_plain(paths: list[str]) -> bool:
    """Tell whether all are regular files below the current folder, none named twice."""
    files = set()
    for path in paths:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or not found.st_ino or _RUNTIME in path:
            return False
        files.add((found.st_dev, found.st_ino))
    below = _here().rstrip(os.sep) + os.sep
    return len(files) == len(paths) and all(
        _RUNTIME not in folder and (folder + os.sep).startswith(below)
        for folder in _folders(paths)
    )


def _has_a_say(paths: list[str]) -> bool:
    """Tell whether a pyproject.toml may speak of quickwins, or a killed run is to be taken back."""
    here = _here()
    if any(_is_unfinished(f) for folder in _folders(paths) for f in _up(folder, here)):
        return True
    for folder in _up(here):
        data = _read(os.path.join(folder, "pyproject.toml"))
        if any(word in data for word in _CONFIGURES) or _is_unfinished(folder):
            return True
        if os.path.lexists(os.path.join(folder, ".git")):
            break
    return False


def _here() -> str:
    return os.path.realpath(os.getcwd())


def _folders(paths: list[str]) -> set[str]:
    return {os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}


def _up(folder: str, end: str = "") -> list[str]:
    """A folder and those above it, below another or up to the top."""
    found: list[str] = []
    while folder != end and folder not in found[-1:]:
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def _is_unfinished(folder: str) -> bool:
    """Tell whether a run may have been killed here; `disk/journal.py` would look closer."""
    state = os.path.join(folder, ".quickwins")
    if not os.path.lexists(state):
        return False
    return bool(_KILLED & {*os.listdir(state)}) or not _read(os.path.join(state, ".gitignore"))


def _are_ruled_out(paths: list[str]) -> bool:
    """Tell whether no file holds what a rule looks for, or an opt-out."""
    from quickwins_codemod import transforms

    needles: set[bytes] = set()
    for folder in transforms.__path__:
        for name in os.listdir(folder):
            if name.endswith(".py"):
                found = sieve.needles_of(_read(os.path.join(folder, name)))
                if found is None:
                    return False
                needles.update(found)
    for path in paths:
        data = _read(path)
        if any(needle in data for needle in needles) or sieve.mentions_opt_out(data):
            return False
    return bool(needles)


def _read(path: str) -> bytes:
    """The bytes of a file, none where there is no such file."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _say(arguments: list[str]) -> int:
    """Print the summary of a run without candidates, to the stream that report/console.py uses."""
    from quickwins_codemod.report import terminal

    number = len(_paths(arguments))
    files = f"{number:,} Python file{'' if number == 1 else 's'}"
    beside = arguments[0] == "check" and not terminal.is_terminal(sys.stdout)
    write = terminal.err if beside else terminal.out
    try:
        write(f"{files}, 0 candidates: nothing to change.\n")
    except terminal.OutputError as error:
        terminal.err(f"quickwins: {error}\n")
        return 3
    return 0
