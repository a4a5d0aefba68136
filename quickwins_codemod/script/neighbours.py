"""What a script imports from other files of its repository, as far as loaders are concerned.

Only the question whether something has a len() is asked across files, and only of functions and
classes that plainly return or hold a DataLoader. Files are parsed with the standard library's ast,
which costs a tenth of libcst's parse, and only when a script asks.
"""

from __future__ import annotations

import ast
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

#: Loaders that are known to have a length. A name alone proves nothing: dgl's DistNodeDataLoader
#: and webdataset's WebLoader have none.
LOADER = re.compile(
    r"^(torch\.utils\.data\.(dataloader\.)?DataLoader"
    r"|torch_geometric\.(loader|data)\.(\w+\.)?\w*Loader"
    r"|dgl\.dataloading\.(DataLoader|GraphDataLoader|NodeDataLoader|EdgeDataLoader)"
    r"|monai\.data\.(\w+\.)?DataLoader)$"
)

#: Folders that hold no code of the repository's own.
_FOREIGN = {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"}


class Neighbours:
    """The modules that a script can import from its own repository.

    folders: where imports are looked up, in order: the script's own folder, the folders it puts on
    sys.path, the root. Nothing outside the root is opened.
    """

    def __init__(self, script: Path, folders: Sequence[Path], root: Path) -> None:
        self.script, self.root = script, root
        self.folders = [f for f in folders if f == root or root in f.parents]

    def loader(self, dotted: str, index: int | None, attribute: str | None) -> str | None:
        """"sized" or "iterable" where an imported function returns (an imported class holds) a
        DataLoader; None where that cannot be seen.

        index: which element of a returned tuple is meant; attribute: what is read of an instance.
        """
        module, _, name = dotted.rpartition(".")
        path = self._find(module)
        if path is None:
            return None
        return _module(path).loader(name, index, attribute)

    def sources(self, dotted: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The text of each imported module that lies in the repository, with its path."""
        seen = set()
        for name in dotted:
            for module in (name, name.rpartition(".")[0]):
                path = self._find(module) if module.strip(".") else None
                if path is not None and path not in seen:
                    seen.add(path)
                    yield path.name, _text(path)
                    break

    def source(self, module: str) -> str | None:
        """The text of one module of the repository, by its dotted name as it is imported."""
        path = self._find(module) if module.strip(".") else None
        return _text(path) if path is not None else None

    def mention(self, *words: str) -> bool:
        """Whether another file of the repository has all of these words in it."""
        wanted = [re.compile(rb"\b" + word.encode() + rb"\b") for word in words]
        for folder, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if not f.startswith(".") and f not in _FOREIGN]
            for file in files:
                path = os.path.join(folder, file)
                if not file.endswith((".py", ".ipynb")) or path == str(self.script):
                    continue
                try:
                    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait
                        continue
                    with open(path, "rb") as stream:
                        text = stream.read()
                except OSError:
                    return True
                if all(word.search(text) for word in wanted):
                    return True
        return False

    def is_harmless(self, dotted: str) -> bool:
        """Whether a function of the repository neither steps anything nor touches a rate."""
        module, _, name = dotted.rpartition(".")
        path = self._find(module)
        function = _module(path).functions.get(name) if path is not None else None
        if function is None:
            return False
        text = ast.unparse(function)
        calls = any(isinstance(n, ast.Call) for n in ast.walk(function))
        return not re.search(r"\.step\(|param_groups|['\"]lr['\"]", text) and not (
            calls and re.search(r"\w+\((?:[^()]*, *)?optimi[sz]er\b", text)
        )

    def _find(self, module: str) -> Path | None:
        level = len(module) - len(module.lstrip("."))
        parts = [p for p in module.lstrip(".").split(".") if p]
        if level:
            base = self.script.parent
            for _ in range(level - 1):
                base = base.parent
            folders = [base]
        else:
            folders = self.folders
        for folder in folders:
            target = folder.joinpath(*parts)
            for candidate in (target.with_suffix(".py"), target / "__init__.py"):
                inside = self.root in candidate.parents
                if parts and inside and candidate.is_file() and not candidate.is_symlink():
                    return candidate
        return None


class _Module:
    """Functions and classes of one neighbour, as far as they give out loaders."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.functions = {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
        self.classes = {n.name: n for n in body if isinstance(n, ast.ClassDef)}
        self.imports: dict[str, str] = {}
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    plain = alias.name if alias.asname else alias.name.split(".")[0]
                    self.imports[alias.asname or plain] = plain
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _dotted(self, node: ast.expr) -> str:
        head, dot, rest = ast.unparse(node).partition(".")
        return self.imports.get(head, head) + dot + rest

    def loader(self, name: str, index: int | None, attribute: str | None) -> str | None:
        if attribute is None:
            function = self.functions.get(name)
            return self._returned(function, index) if function is not None else None
        owner = self.classes.get(name)
        if owner is None:
            return None
        methods = [n for n in owner.body if isinstance(n, ast.FunctionDef)]
        for method in methods:
            if method.name == attribute.removesuffix("()"):
                return self._returned(method, index) if attribute.endswith("()") else None
        found = {
            self._kind(node.value, method)
            for method in methods
            for node in ast.walk(method)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if ast.unparse(target) == f"self.{attribute}"
        }
        return found.pop() if len(found) == 1 else None

    def _returned(self, function: ast.FunctionDef, index: int | None) -> str | None:
        found = set()
        for node in _own(function):
            if not isinstance(node, ast.Return) or node.value is None:
                continue
            value: ast.expr | None = node.value
            if index is not None:
                elements = value.elts if isinstance(value, ast.Tuple) else []
                value = elements[index] if index < len(elements) else None
            found.add(self._kind(value, function))
        return found.pop() if len(found) == 1 else None

    def _kind(self, value: ast.expr | None, function: ast.FunctionDef, depth: int = 0) -> str | None:
        if isinstance(value, ast.Call):
            name = ast.unparse(value.func)
            if LOADER.match(self._dotted(value.func)):
                return "iterable" if self._iterates(value, function) else "sized"
            inner = self.functions.get(name)
            return self._returned(inner, None) if inner is not None and depth < 4 else None
        if isinstance(value, ast.Name) and depth < 4:
            kinds = {
                self._kind(bound, function, depth + 1) for bound in _bound(function, value.id)
            }
            return kinds.pop() if len(kinds) == 1 else None
        return None

    def _iterates(self, call: ast.Call, function: ast.FunctionDef) -> bool:
        """The loader's dataset is an IterableDataset of this module."""
        data = call.args[0] if call.args else None
        made = [data] if isinstance(data, ast.Call) else []
        if isinstance(data, ast.Name):
            made = [b for b in _bound(function, data.id) if isinstance(b, ast.Call)]
        for maker in made:
            owner = self.classes.get(ast.unparse(maker.func))
            if owner is not None and any("IterableDataset" in ast.unparse(b) for b in owner.bases):
                return True
        return False


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, those of functions inside it left out."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))


def _bound(function: ast.FunctionDef, name: str) -> Iterator[ast.expr | None]:
    """What a local name is bound to; None for a binding that is not a plain assignment."""
    for node in _own(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
                elif any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(target)):
                    yield None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


@lru_cache(maxsize=128)
def _module(path: Path) -> _Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Module(ast.parse(path.read_bytes()).body)
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return _Module([])
