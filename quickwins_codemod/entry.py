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
        return _are_plain(paths) and not _has_a_say() and _are_ruled_out(paths)
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
    here = os.path.realpath(os.getcwd())
    below = here.rstrip(os.sep) + os.sep
    folders = {os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    return len(files) == len(paths) and all(
        _RUNTIME not in folder and (folder == here or folder.startswith(below))
        for folder in folders
    )


def _has_a_say() -> bool:
    """Tell whether a pyproject.toml may configure quickwins, or a killed run is to be taken back."""
    folder, last = os.path.realpath(os.getcwd()), ""
    while folder != last:
        data = _read(os.path.join(folder, "pyproject.toml"))
        state = os.path.join(folder, ".quickwins")
        if any(word in data for word in _CONFIGURES) or (
            os.path.lexists(state) and not _is_at_rest(state)
        ):
            return True
        if os.path.lexists(os.path.join(folder, ".git")):
            break
        folder, last = os.path.dirname(folder), folder
    return False


def _is_at_rest(state: str) -> bool:
    """Tell whether a folder of the tool's own holds nothing of a run that was killed."""
    return not _KILLED & {*os.listdir(state)} and bool(_read(os.path.join(state, ".gitignore")))


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
