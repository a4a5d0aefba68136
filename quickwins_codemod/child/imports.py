"""Calls a function right after a module was imported, whenever that is.

So that nothing is imported that the script does not import itself, and not earlier: it may set
environment variables first that the module reads.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional

_waiting: dict[str, list[Callable[[Any], None]]] = {}
#: What went wrong in a function that was called; the script goes on without it.
problems: list[str] = []


def after(name: str, function: Callable[[Any], None]) -> None:
    """Call function(module) when the module of this name has been imported, or now if it has."""
    if name in sys.modules:
        _call(function, sys.modules[name])
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    _waiting.setdefault(name, []).append(function)


class _Finder:
    """Lets the other finders find, and listens at the loader that they return."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[Any]:
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            found = getattr(finder, "find_spec", None)
            spec = found(name, path, target) if found is not None and finder is not self else None
            if spec is not None:
                _listen(name, spec.loader)
                return spec
        return None


def _listen(name: str, loader: Any) -> None:
    run = getattr(loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: Any) -> None:
        vars(loader).pop("exec_module", None)
        run(module)
        for function in _waiting.pop(name, []):
            _call(function, module)

    try:
        loader.exec_module = exec_module
    except AttributeError:  # a loader without attributes of its own
        pass


def _call(function: Callable[[Any], None], module: Any) -> None:
    try:
        function(module)
    except Exception as error:  # of a version of the module that is built otherwise
        problems.append(f"{module.__name__}: {type(error).__name__}: {error}")
