"""Placing the runtime: the package `quickwins_runtime` that rewritten scripts import.

Its files are data here, read from the installed `quickwins_codemod.runtime` and never imported.
Each copy starts with a header that names the version and a hash of what follows, so that a copy
somebody has edited can be told from one that may be upgraded.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quickwins_codemod import __version__
from quickwins_codemod.verdict import FileOutcome, Verdict

PACKAGE = "quickwins_runtime"
RULE = "runtime"
HEADER_PREFIX = "# quickwins-codemod runtime "
_NOTICE = "# Written by `quickwins apply`. An edited copy is kept as it is and never overwritten.\n"
_HEADER = re.compile(rb"# quickwins-codemod runtime (\S+) sha256:([0-9a-f]{64})\r?\n#[^\n]*\n")


@cache
def runtime_files() -> dict[str, bytes]:
    """Return the runtime's source files by name, without their headers."""
    # Not importlib.resources.files: given a name, it imports the package, and with it torch.
    spec = importlib.util.find_spec("quickwins_codemod.runtime")
    reader = getattr(spec and spec.loader, "get_resource_reader", None)
    if reader is None:
        raise RuntimeError("the installation of quickwins-codemod lacks its runtime")
    folder = reader("quickwins_codemod.runtime").files()
    found = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(".py")}
    return {name: found[name].replace(b"\r\n", b"\n") for name in sorted(found)}


def with_header(body: bytes, version: str = __version__) -> bytes:
    """Put the header before the text of a runtime file."""
    return f"{HEADER_PREFIX}{version} sha256:{_hash(body)}\n{_NOTICE}".encode() + body


def locate(root: Path) -> Path:
    """Return the directory that holds the runtime's package, or will hold it.

    That is where a copy stands already: at the root or in a directory above it, up to the top
    level of the git work tree; else the root.
    """
    above = [root, *root.parents]
    tops = [i for i, folder in enumerate(above) if os.path.lexists(folder / ".git")]
    within = above[: tops[0] + 1] if tops else [root]
    return next((folder for folder in within if _is_ours(folder / PACKAGE)), root)


def plan(root: Path, home: Path) -> list[FileOutcome]:
    """Say what the package in `home` (see `locate`) lacks to be today's runtime.

    Files to create or upgrade have status "added". A modified copy is kept, with a warning; a
    package of that name that is not ours is "refused": what imports the runtime would not work.
    Nothing is planned for a home above the root, since nothing is written there.
    """
    package = home / PACKAGE
    if home != root or not package.resolve().is_relative_to(root.resolve()):
        return []
    taken = next((p for p in (package, home / f"{PACKAGE}.py") if os.path.lexists(p)), None)
    if taken is not None and not _is_ours(package):
        return [_foreign(taken.relative_to(root).as_posix())]
    outcomes = (_plan_file(package / name, body) for name, body in runtime_files().items())
    return [outcome for outcome in outcomes if outcome is not None]


def _plan_file(path: Path, body: bytes) -> FileOutcome | None:
    relative = f"{PACKAGE}/{path.name}"
    if not os.path.lexists(path):
        return FileOutcome(relative, "added", after=with_header(body))
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("is not a regular file")
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        return FileOutcome(relative, "error", (Verdict(RULE, "refused", "QW003", 1, 1, message),))
    header = _HEADER.match(data)
    found = _hash(data[header.end() :]) if header else None
    if found == _hash(body):
        return None
    if header is None or header[2].decode() != found:
        return _kept(relative, "the bundled runtime was modified; it is kept as it is")
    version = header[1].decode(errors="replace")
    if _order(version) > _order(__version__):
        return _kept(relative, f"the bundled runtime is of a newer version ({version}); it is kept")
    return FileOutcome(relative, "added", before=data, after=with_header(body))


def _kept(path: str, message: str) -> FileOutcome:
    hint = f"for a copy of version {__version__}, delete the file and run `quickwins apply` again"
    return FileOutcome(path, "unchanged", (Verdict(RULE, "warning", "QW008", 1, 1, message, hint),))


def _foreign(path: str) -> FileOutcome:
    message = f"{path} was not written by quickwins; it is not overwritten"
    hint = f'rename it, or set runtime = "installed" to import the runtime from {__package__}'
    return FileOutcome(path, "refused", (Verdict(RULE, "refused", "QW008", 1, 1, message, hint),))


def _is_ours(package: Path) -> bool:
    try:
        with open(package / "__init__.py", "rb") as file:
            return file.read(len(HEADER_PREFIX)) == HEADER_PREFIX.encode()
    except OSError:
        return False


def _hash(body: bytes) -> str:
    # git may check the copy out with CRLF; that is no edit.
    return hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest()


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


@dataclass(frozen=True)
class PathLine:
    """A visible line that puts the runtime's folder on a script's path, and what it needs."""

    text: str
    imports: tuple[str, ...] = ("import sys", "from pathlib import Path")


def sys_path_line(script: Path, home: Path, on_path: Collection[Path]) -> PathLine | None:
    """Return the line that `script` needs before it can import the runtime in `home`.

    None when the import resolves without one: from the script's own folder, or from one in
    `on_path`, the folders that the script itself puts on sys.path before (`static_sys_path`).
    Raises ValueError when `home` is not a directory above the script.
    """
    folder, home = script.resolve().parent, home.resolve()
    if home == folder or any(home == path.resolve() for path in on_path):
        return None
    level = [folder, *folder.parents].index(home)
    where = f"str(Path(__file__).resolve().parents[{level}])"
    return PathLine(f"sys.path.append({where})  # for {PACKAGE}")


def static_sys_path(module: ast.Module, script: Path) -> list[tuple[int, Path]]:
    """Return the folders that a script provably adds to sys.path, with each addition's last line.

    Counted are additions at module level that always run and whose folder is built from
    `__file__`, so that it is the same wherever the script is started. A script that also takes
    entries away, or whose additions are not understood, is given nothing.
    """
    return _Additions(script).of(module)


class _Unknown(Exception):
    """An expression whose value the source does not tell."""


@dataclass(frozen=True)
class _Known:
    """A module, or what it holds, by the name that its documentation gives it."""

    name: str


@dataclass(frozen=True)
class _Method:
    path: Path
    name: str


_MODULES = {"sys", "os", "os.path", "pathlib", "site"}
_TEXTS = {"os.pardir": "..", "os.curdir": "."}
_ERRORS = (_Unknown, IndexError, OSError, RuntimeError, TypeError, ValueError)
_SYS_PATH = _Known("sys.path")


class _Additions:
    """Runs a module's statements as far as they bear on sys.path; every doubt is an _Unknown."""

    def __init__(self, script: Path) -> None:
        self.names: dict[str, object] = {"__file__": os.path.abspath(script), "str": _Known("str")}
        self.found: list[tuple[int, Path]] = []

    def of(self, module: ast.Module) -> list[tuple[int, Path]]:
        nodes = list(ast.walk(module))
        changing = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        for statement in module.body:
            self._run(statement)
            for name in changing:  # some function may set it at any time
                self.names.pop(name, None)
        return [] if _takes_away(nodes) else self.found

    def _run(self, statement: ast.stmt) -> None:
        added = list(self._added(statement))
        value: object = None
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
            value = self._try(statement.value)
        for name, bound in _bindings(statement):
            if name == "*":  # may bind anything
                self.names = {"__file__": self.names.get("__file__")}
            if bound is None or self.names.get(name) != bound:
                self.names.pop(name, None)
            if bound and name != "*" and isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.names[name] = bound
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and value is not None:
            targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
            self.names.update({t.id: value for t in targets if isinstance(t, ast.Name)})
        self.found += [(statement.end_lineno or statement.lineno, path) for path in added]

    def _added(self, statement: ast.stmt) -> Iterator[Path]:
        match statement:
            case ast.Expr(ast.Call(function, arguments, [])):
                match self._try(function), arguments:
                    case _Known("sys.path.append"), [entry]:
                        yield from self._entries([entry])
                    case _Known("sys.path.insert"), [_, entry]:
                        yield from self._entries([entry])
                    case _Known("sys.path.extend"), [ast.List(entries) | ast.Tuple(entries)]:
                        yield from self._entries(entries)
                    case _Known("site.addsitedir"), [entry]:
                        yield from self._entries([entry], (str, Path))
            case ast.AugAssign(target, ast.Add(), ast.List(entries) | ast.Tuple(entries)):
                if self._try(target) == _SYS_PATH:
                    yield from self._entries(entries)
            case ast.If(ast.Compare(entry, [ast.NotIn()], [where]), body, []):
                # The usual guard: afterwards the folder is on the path either way.
                if self._try(where) == _SYS_PATH:
                    wanted = set(self._entries([entry], (str, Path)))
                    yield from (p for child in body for p in self._added(child) if p in wanted)

    def _entries(self, nodes: list[ast.expr], types: tuple[type, ...] = (str,)) -> Iterator[Path]:
        # Python passes over a Path object in sys.path; only text counts.
        for value in map(self._try, nodes):
            if isinstance(value, types) and os.path.isabs(str(value)):
                yield Path(os.path.realpath(str(value)))

    def _try(self, node: ast.expr) -> object:
        try:
            return self._value(node)
        except _ERRORS:
            return None

    def _value(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(str() as text) if not os.path.isabs(text):
                return text
            case ast.Name(name) if name in self.names:
                return self.names[name]
            case ast.Attribute(inner, attribute):
                return _attribute(self._value(inner), attribute)
            case ast.Subscript(inner, ast.Constant(int() as index)) if index >= 0:
                value = self._value(inner)
                if isinstance(value, tuple):
                    return value[index]
            case ast.BinOp(left, ast.Div(), right):
                value = self._value(left)
                if isinstance(value, Path):
                    return value / self._text(right)
            case ast.BinOp(left, ast.Add(), right):
                value = self._value(left)
                if isinstance(value, str):
                    return _concatenate(value, self._text(right, part=True))
            case ast.JoinedStr(parts):
                first, *others = parts
                value = self._text(first)
                for part in others:
                    value = _concatenate(value, self._text(part, part=True))
                return value
            case ast.Call(function, arguments, keywords):
                return self._call(self._value(function), arguments, keywords)
        raise _Unknown

    def _text(self, node: ast.expr, part: bool = False) -> str:
        match node:
            case ast.FormattedValue(inner, -1 | 115, None):  # {x} and {x!s}
                return self._text(inner)
            case ast.Constant(str() as text) if part:  # "/src" is no path of its own here
                return text
        value = self._value(node)
        if not isinstance(value, (str, Path)):
            raise _Unknown
        return str(value)

    def _call(self, function: object, nodes: list[ast.expr], keywords: list[ast.keyword]) -> object:
        if keywords and [k.arg for k in keywords] != ["strict"]:
            raise _Unknown
        texts = [self._text(node) for node in nodes]
        match function, texts:
            case _Method(path, "resolve"), [] if path.is_absolute():
                return path.resolve()
            case _Method(path, "absolute"), [] if path.is_absolute():
                return path
            case _Method(path, "joinpath"), _:
                return path.joinpath(*texts)
            case _Method(path, "as_posix"), []:
                return path.as_posix()
            case _Known("str" | "os.fspath"), [text]:
                return text
            case _Known("pathlib.Path"), _:
                return Path(*texts)
            case _Known("os.path.join"), [first, *others]:
                return os.path.join(first, *others)
            case _Known("os.path.dirname"), [text]:
                return os.path.dirname(text)
            case _Known("os.path.normpath"), [text]:
                return os.path.normpath(text)
            case _Known("os.path.abspath"), [text] if os.path.isabs(text):
                return os.path.abspath(text)
            case _Known("os.path.realpath"), [text] if os.path.isabs(text):
                return os.path.realpath(text)
        raise _Unknown


def _attribute(value: object, attribute: str) -> object:
    if isinstance(value, _Known):
        return _known(f"{value.name}.{attribute}")
    if isinstance(value, Path) and attribute == "parent":
        return value.parent
    if isinstance(value, Path) and attribute == "parents":
        return tuple(value.parents)
    if isinstance(value, Path):
        return _Method(value, attribute)
    raise _Unknown


def _known(name: str) -> object:
    return _TEXTS.get(name.replace("os.path.", "os."), _Known(name))


def _concatenate(left: str, right: str) -> str:
    if os.path.isabs(left + right) and not os.path.isabs(left):
        raise _Unknown
    return left + right


def _bindings(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Name what running a statement binds: known modules with their value, all else with None."""
    match node:
        case ast.Import(aliases):
            for alias in aliases:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or name, _Known(name) if name in _MODULES else None
        case ast.ImportFrom(module, aliases, level):
            known = module in _MODULES and not level
            for alias in aliases:
                value = _known(f"{module}.{alias.name}") if known else None
                yield alias.asname or alias.name, value
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name, None
        case ast.Name(name, ast.Store() | ast.Del()):
            yield name, None
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name, None
        case ast.MatchStar(str(name)) | ast.MatchMapping(rest=str(name)):
            yield name, None
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _bindings(child)


def _takes_away(nodes: list[ast.AST]) -> bool:
    """Say whether the script, anywhere, may take entries from sys.path or set it anew."""
    modules: set[str | None] = {"sys"}
    lists: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "sys"}
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            lists |= {alias.asname or alias.name for alias in node.names if alias.name == "path"}

    def is_sys_path(node: ast.AST) -> bool:
        match node:
            case ast.Attribute(ast.Name(name), "path"):
                return name in modules
            case ast.Name(name):
                return name in lists
        return False

    grown = {
        id(n.target) for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.op, ast.Add)
    }
    for node in nodes:
        match node:
            case ast.Attribute(inner, "remove" | "pop" | "clear") if is_sys_path(inner):
                return True
            case ast.Subscript(inner, _, ast.Store() | ast.Del()) if is_sys_path(inner):
                return True
            case ast.Attribute(_, _, ast.Store() | ast.Del()) if is_sys_path(node):
                if id(node) not in grown:
                    return True
            case ast.Assign(_, value) | ast.NamedExpr(_, value) if is_sys_path(value):
                return True  # a second name for it, which may do anything
    return False
