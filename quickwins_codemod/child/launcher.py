"""Runs a script as `python SCRIPT ARGS` does, guards the original tree, and notes what it did.

usage: PYTHON launcher.py FOLDER SCRIPT [ARGS...]

FOLDER holds launch.json: {"original": the tree that must not be written, "copy": where the script
runs, "seed": which repetition this is, or null, "record": where to write one, or null};
what was seen goes to FOLDER/observation.json.
"""

from __future__ import annotations

import atexit
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import types
from typing import Any, Optional


def _load(name: str) -> Any:
    """Import a file beside this one under a name that no script uses."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_quickwins_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class _Notes:
    """What was seen, written once: when the script ends, or when it is told to."""

    def __init__(
        self, folder: str, watch: Any, guard: Any, recorder: Any, problems: list[str]
    ) -> None:
        self.path = os.path.join(folder, "observation.json")
        self.recorder = recorder
        self.watch, self.guard, self.problems = watch, guard, problems
        self.failure: Optional[dict[str, Any]] = None
        self.process = os.getpid()

    def write(self) -> None:
        if os.getpid() != self.process:  # a fork of the script's
            return
        if self.recorder is not None:
            self.recorder.close()
        found = {
            "version": 1,
            **self.watch.found(),
            **self.guard.found(),
            "amp": os.environ.get("QUICKWINS_AMP", ""),
            "problems": self.problems,
            "failure": self.failure,
        }
        temporary = f"{self.path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(found, file)
        os.replace(temporary, self.path)

    def fail(self, error: BaseException) -> None:
        """Note what ended the script, and the deepest line of its own that is on the way."""
        kind = type(error)
        name = kind.__name__
        if kind.__module__ not in ("builtins", "__main__"):
            name = f"{kind.__module__}.{name}"
        said = error.code if isinstance(error, SystemExit) else error
        if isinstance(said, int):
            said = f"exit code {said}"
        self.failure = {"type": name, "message": " ".join(str(said).split())[:500]}
        places = [(error.filename, error.lineno)] if isinstance(error, SyntaxError) else []
        trace = error.__traceback__
        while trace is not None:
            places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        for path, line in places:
            full = os.path.realpath(path or "")
            if full.startswith(self.guard.copy + os.sep):
                relative = os.path.relpath(full, self.guard.copy).replace(os.sep, "/")
                self.failure.update(path=relative, line=line or 0)
                if isinstance(error, SyntaxError):
                    break  # the line in question, and not the import that leads there


def _as_main(script: str) -> types.ModuleType:
    """Make the module that `python SCRIPT` would run, in the place of this one."""
    full = os.path.abspath(script)
    module = types.ModuleType("__main__")
    module.__file__ = full
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", full)
    module.__dict__.update(__cached__=None, __builtins__=__builtins__, __package__=None)
    sys.modules["__main__"] = module
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    return module


def _end_with_parent() -> None:
    """Let the system end this process when quickwins is killed, which could not do so any more."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def main() -> None:
    _end_with_parent()
    folder, script, *arguments = sys.argv[1:]
    with open(os.path.join(folder, "launch.json"), encoding="utf-8") as file:
        asked = json.load(file)
    imports, seeding = _load("imports"), _load("seeding")
    guard = _load("guard").Guard(asked["original"], asked["copy"], folder)
    watching = _load("watching")
    watch = watching.Watch(guard)
    recorder = None
    if asked.get("record"):
        recorder = _load("recording").Recorder(asked["record"], watching.replace, watching.peaks)
    notes = _Notes(folder, watch, guard, recorder, imports.problems)
    # First of all handlers, so that it is the last to run.
    atexit.register(notes.write)

    def end(number: int, frame: object) -> None:
        if os.getpid() == notes.process:
            notes.write()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    if asked["seed"] is not None:
        seeding.seed(imports, int(asked["seed"]))
    watch.start(imports)
    if recorder is not None:
        recorder.start(imports)
    guard.start()

    own = sys.modules["__main__"]  # kept: its functions are still to run
    sys.argv = [script, *arguments]
    module = _as_main(script)
    try:
        with open(module.__file__, "rb") as file:
            text = file.read()
        exec(compile(text, module.__file__, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        if error.code not in (None, 0):
            notes.fail(error)
        raise
    except BaseException as error:
        notes.fail(error)
        # Without the frame of this file, which the user has never heard of.
        trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
    finally:
        del own


if __name__ == "__main__":
    main()
