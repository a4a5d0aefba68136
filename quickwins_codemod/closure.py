"""Which files of a repository a script imports, directly or through one another.

Read with the standard library's ast, and rather too many than too few: an import in a function or
under a condition counts, and where a script puts folders in front of others on its path, a name is
looked up in all of them.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from quickwins_codemod import bundle


def files(script: Path, root: Path, path: Iterable[Path] = ()) -> list[Path]:
    """Return the script and what it imports from below the root, sorted.

    path: folders that are on its path besides its own and those that it adds itself.
    """
    script, root = script.resolve(), root.resolve()
    known: set[Path] = set()
    waiting = [script]
    first = [script.parent, *(folder.resolve() for folder in path)]
    last = [root, root / "src"]  # where a package may be that is installed from here
    added: list[Path] = []
    shuffled = False
    while waiting:
        file = waiting.pop()
        if file in known:
            continue
        known.add(file)
        module = _parsed(file)
        if module is None:
            continue
        added += [folder.resolve() for _, folder in bundle.static_sys_path(module, file)]
        shuffled |= "path.insert(" in ast.unparse(module)
        for name, level in _names(module):
            if level:
                above = file.parents[min(level, len(file.parents)) - 1]
                waiting += _found(name, [above], root)
                continue
            for folder in dict.fromkeys([*first, *added, *last]):
                found = _found(name, [folder], root)
                waiting += found
                if found and not shuffled:
                    break
    return sorted(known)


def _parsed(file: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return None


def _names(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Name what is imported, dotted, and how many folders above it counts from (0: absolute)."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from ((f"{base}{alias.name}", node.level) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for word in node.args[:1]:
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    yield word.value.lstrip("."), 0


def _found(name: str, folders: Iterable[Path], root: Path) -> list[Path]:
    """Return the files that the parts of a dotted name may be, packages and module."""
    found = []
    for folder in folders:
        place = folder
        for part in name.split("."):
            for file in (place / f"{part}.py", place / part / "__init__.py"):
                if file.is_file():
                    real = Path(os.path.realpath(file))
                    found += [real] if real.is_relative_to(root) else []
            place = place / part
        # A relative import, or one from a package without __init__.py, may name a folder itself.
        if (place / "__init__.py").is_file() and place.is_relative_to(root):
            found.append(place / "__init__.py")
    return found
