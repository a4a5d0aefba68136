"""Placing the runtime, and how a script comes to import it, judged by running Python."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod import bundle
from quickwins_codemod.bundle import PACKAGE, locate, plan, static_sys_path, sys_path_line
from quickwins_codemod.verdict import FileOutcome

INIT = f"{PACKAGE}/__init__.py"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A runtime of two small files, so that these tests do not depend on the real one."""
    files = {"__init__.py": b"from .schedule import X\n", "schedule.py": b"X = 1\n"}
    monkeypatch.setattr(bundle, "runtime_files", lambda: files)
    monkeypatch.setattr(bundle, "__version__", "0.2.0")
    return files


def place(root: Path, outcomes: list[FileOutcome]) -> None:
    for outcome in outcomes:
        if outcome.after is not None:
            (root / outcome.path).parent.mkdir(exist_ok=True)
            (root / outcome.path).write_bytes(outcome.after)


def placed(root: Path) -> Path:
    place(root, plan(root, root))
    return root / PACKAGE


def test_the_real_runtime_is_read_but_never_imported() -> None:
    code = (
        "import sys; from quickwins_codemod import bundle; files = bundle.runtime_files();"
        "print(sorted(files) and '__init__.py' in files, 'torch' in sys.modules,"
        " 'quickwins_codemod.runtime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_a_fresh_tree_gets_every_file_with_a_header(tmp_path: Path) -> None:
    outcomes = plan(tmp_path, tmp_path)
    assert [o.path for o in outcomes] == [INIT, f"{PACKAGE}/schedule.py"]
    assert {(o.status, o.before) for o in outcomes} == {("added", None)}
    for outcome in outcomes:
        assert outcome.after is not None
        first, second, *rest = outcome.after.decode().splitlines()
        assert first.startswith(f"{bundle.HEADER_PREFIX}0.")
        assert second.startswith("# ") and "quickwins apply" in second
        compile("\n".join(rest), outcome.path, "exec")


def test_a_second_plan_is_empty_and_a_missing_file_comes_back(tmp_path: Path) -> None:
    package = placed(tmp_path)
    assert plan(tmp_path, tmp_path) == []
    (package / "schedule.py").unlink()
    assert [o.path for o in plan(tmp_path, tmp_path)] == [f"{PACKAGE}/schedule.py"]


def test_crlf_is_no_edit(tmp_path: Path) -> None:
    package = placed(tmp_path)
    for file in package.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert plan(tmp_path, tmp_path) == []


def test_an_unmodified_older_copy_is_upgraded(tmp_path: Path) -> None:
    old = placed(tmp_path) / "schedule.py"
    old.write_bytes(bundle.with_header(b"X = 0\n", "0.1.9"))
    (tmp_path / PACKAGE / "gone.py").write_bytes(bundle.with_header(b"", "0.1.9"))
    before = old.read_bytes()
    (outcome,) = plan(tmp_path, tmp_path)
    assert (outcome.status, outcome.before, outcome.has_change) == ("added", before, True)
    place(tmp_path, [outcome])
    assert old.read_bytes().endswith(b"X = 1\n") and plan(tmp_path, tmp_path) == []


def test_a_modified_copy_is_kept_with_a_warning(tmp_path: Path) -> None:
    file = placed(tmp_path) / "schedule.py"
    file.write_bytes(file.read_bytes() + b"X = 2\n")
    (outcome,) = plan(tmp_path, tmp_path)
    assert (outcome.status, outcome.has_change) == ("unchanged", False)
    (verdict,) = outcome.verdicts
    assert (verdict.rule, verdict.status, verdict.code) == ("runtime", "warning", "QW008")
    assert verdict.hint and "delete the file" in verdict.hint


def test_a_copy_without_its_header_counts_as_modified(tmp_path: Path) -> None:
    (placed(tmp_path) / "schedule.py").write_bytes(b"X = 1\n")
    assert [o.status for o in plan(tmp_path, tmp_path)] == ["unchanged"]


def test_a_newer_copy_is_not_downgraded(tmp_path: Path) -> None:
    (placed(tmp_path) / "schedule.py").write_bytes(bundle.with_header(b"X = 3\n", "0.10.0"))
    (outcome,) = plan(tmp_path, tmp_path)
    assert outcome.status == "unchanged" and "newer version (0.10.0)" in outcome.verdicts[0].message


@pytest.mark.parametrize("foreign", [INIT, f"{PACKAGE}.py", f"{PACKAGE}/other.py"])
def test_a_foreign_package_is_refused(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine = 1\n")
    (outcome,) = plan(tmp_path, tmp_path)
    assert (outcome.status, outcome.has_change) == ("refused", False)
    assert outcome.verdicts[0].code == "QW008"
    assert locate(tmp_path) == tmp_path


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    file = placed(tmp_path) / "schedule.py"
    file.unlink()
    file.mkdir()
    (outcome,) = plan(tmp_path, tmp_path)
    assert (outcome.status, outcome.verdicts[0].code) == ("error", "QW003")


def test_locate_looks_up_to_the_git_top_level(tmp_path: Path) -> None:
    top = tmp_path / "top"
    root = top / "a/b"
    root.mkdir(parents=True)
    placed(tmp_path)
    assert locate(root) == root
    (top / ".git").mkdir()
    assert locate(root) == root, "what lies above the work tree is not ours"
    placed(top)
    assert locate(root) == locate(top) == top
    assert plan(root, top) == [], "nothing is written above the root"
    placed(root)
    assert locate(root) == root
    (tmp_path / "plain").mkdir()
    assert locate(tmp_path / "plain") == tmp_path / "plain"


def test_a_linked_package_outside_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / PACKAGE).symlink_to(placed(tmp_path / "shared"))
    (tmp_path / "shared" / PACKAGE / "schedule.py").unlink()
    assert plan(tmp_path / "root", tmp_path / "root") == []


def test_sys_path_line_works_from_every_folder(tmp_path: Path) -> None:
    placed(tmp_path)
    for name in ("a.py", "x/a.py", "x/y/a.py"):
        script = tmp_path / name
        script.parent.mkdir(exist_ok=True)
        line = sys_path_line(script, tmp_path, [])
        assert (line is None) == (name == "a.py")
        lines = [*line.imports, line.text] if line else []
        script.write_text("\n".join([*lines, f"import {PACKAGE}", f"print({PACKAGE}.X)"]))
        for cwd in (tmp_path, script.parent, Path("/")):
            command = [sys.executable, os.path.relpath(script, cwd)]
            done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
            assert done.stdout == "1\n", done.stderr


def test_sys_path_line_is_not_needed_where_the_script_adds_the_folder(tmp_path: Path) -> None:
    script = tmp_path / "x/y/a.py"
    script.parent.mkdir(parents=True)
    assert sys_path_line(script, tmp_path, [tmp_path / "x/.."]) is None
    line = sys_path_line(script, tmp_path, [tmp_path / "x"])
    assert line is not None
    assert line.text == (
        "sys.path.append(str(Path(__file__).resolve().parents[2]))  # for quickwins_runtime"
    )
    with pytest.raises(ValueError):
        sys_path_line(script, tmp_path / "elsewhere", [])


HEAD = "import os, sys, site, pathlib\nfrom pathlib import Path\n"
COUNTED = [
    "sys.path.append(os.path.dirname(__file__))",
    "sys.path.append(os.path.dirname(os.path.abspath(__file__)))",
    "sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))",
    "sys.path.insert(1, os.path.join(os.path.dirname(__file__), '..'))",
    "sys.path.append(os.path.join(os.path.dirname(__file__), os.pardir, os.path.pardir))",
    "sys.path.append(os.path.normpath(os.path.join(os.path.dirname(__file__), '../lib')))",
    "sys.path.append(os.path.abspath(os.path.dirname(__file__) + '/..'))",
    "sys.path.append(os.path.dirname(__file__) + '/../src')",
    "sys.path.append(f'{os.path.dirname(__file__)}/../src')",
    "sys.path.append(f'{Path(__file__).parent!s}/src')",
    "sys.path.append(str(Path(__file__).parent))",
    "sys.path.append(str(Path(__file__).parent.parent))",
    "sys.path.append(str(Path(__file__).resolve().parents[1]))",
    "sys.path.append(str(pathlib.Path(__file__).absolute().parent / '..' / 'src'))",
    "sys.path.append(str(Path(__file__).parent.joinpath('..', 'src').resolve()))",
    "sys.path.append(Path(__file__).parent.as_posix())",
    "sys.path.append(os.fspath(Path(__file__).parent))",
    "sys.path.append(str(Path(os.path.dirname(__file__), '..')))",
    "ROOT = Path(__file__).parent.parent\nsys.path.append(str(ROOT / 'src'))",
    "HERE: str = os.path.dirname(__file__)\nsys.path.insert(0, HERE)",
    "A = B = Path(__file__).resolve(strict=True)\nA = A.parents[0]\nsys.path.append(str(A))",
    "sys.path.extend([os.path.dirname(__file__), str(Path(__file__).parents[1])])",
    "sys.path += [str(Path(__file__).parent / 'src'), os.path.dirname(__file__)]",
    "site.addsitedir(os.path.dirname(os.path.dirname(__file__)))",
    "site.addsitedir(Path(__file__).parent)",
    "from os import path\nsys.path.append(path.dirname(__file__))",
    "import os.path as osp\nsys.path.append(osp.join(osp.dirname(__file__), '..'))",
    "from os.path import dirname as d, join\nsys.path.append(join(d(__file__), 'src'))",
    "from sys import path as p\np.append(os.path.dirname(__file__))",
    "import sys as s\ns.path.append(os.path.dirname(__file__))",
    "R = Path(__file__).parent\nif str(R) not in sys.path:\n    sys.path.insert(0, str(R))",
    "sys.path.append(\n    os.path.dirname(__file__)\n)",
    "try:\n    import os\nexcept OSError:\n    pass\nsys.path.append(os.path.dirname(__file__))",
    "def f():\n    os = 1\n    path = 2\nsys.path.append(os.path.dirname(__file__))",
    "x = 1; sys.path.append(os.path.dirname(__file__))",
]
NOT_COUNTED = {
    "cwd": "sys.path.append('..')",
    "getcwd": "sys.path.append(os.getcwd())",
    "cwd resolved": "sys.path.append(os.path.abspath('..'))",
    "cwd by pathlib": "sys.path.append(str(Path('..').resolve()))",
    "a literal of one machine": "sys.path.append('/opt/lib')",
    "such a literal in disguise": "sys.path.append('' + '/opt/lib')",
    "joined to one": "sys.path.append(os.path.join(os.path.dirname(__file__), '/opt'))",
    "Python passes over a Path": "sys.path.append(Path(__file__).parent)",
    "conditional": "if len(sys.argv) > 1:\n    sys.path.append(os.path.dirname(__file__))",
    "guarded by something else": (
        "if 'x' not in sys.path:\n    sys.path.append(os.path.dirname(__file__))"
    ),
    "in a function": "def f():\n    sys.path.append(os.path.dirname(__file__))",
    "in a try": (
        "try:\n    1 / 0\n    sys.path.append(os.path.dirname(__file__))\nexcept Exception: 0"
    ),
    "in a loop": "for x in []:\n    sys.path.append(os.path.dirname(__file__))",
    "rebound": "R = os.path.dirname(__file__)\nR = input\nsys.path.append(R)",
    "rebound in a branch": (
        "R = os.path.dirname(__file__)\nif len(sys.argv) == 1:\n    R = '/x'\nsys.path.append(R)"
    ),
    "rebound by a loop": (
        "R = os.path.dirname(__file__)\nfor R in ['/x']:\n    pass\nsys.path.append(R)"
    ),
    "rebound by a walrus": (
        "R = os.path.dirname(__file__)\nprint(R := '/x', file=sys.stderr)\nsys.path.append(R)"
    ),
    "rebound by a function": (
        "def f():\n    global R\n    R = '/x'\nR = os.path.dirname(__file__)\nf()\n"
        "sys.path.append(R)"
    ),
    "os is not os": "import types as os\nos.path = os\nsys.path.append('/x')",
    "Path is another": ("def Path(x):\n    return '/x'\nsys.path.append(Path(__file__))"),
    "taken away": (
        "sys.path.append(os.path.dirname(__file__))\nsys.path.remove(os.path.dirname(__file__))"
    ),
    "popped elsewhere": (
        "def f():\n    sys.path.pop()\nsys.path.append(os.path.dirname(__file__))\nf()"
    ),
    "set anew": "sys.path.append(os.path.dirname(__file__))\nsys.path = list(sys.path[:-1])",
    "cut": "sys.path.append(os.path.dirname(__file__))\ndel sys.path[-1]",
    "aliased": "sys.path.append(os.path.dirname(__file__))\np = sys.path\np[:] = p[:-1]",
    "no such parent": "try:\n    p = str(Path(__file__).parents[99])\nexcept IndexError: p = '/x'",
    "a part of a method": "sys.path.append(Path(__file__).name[0])",
    "star import": "from os.path import *\nsys.path.append('/x')",
}


def run_all(folder: Path, bodies: list[str]) -> list[tuple[Path, list[Path]]]:
    """Run each body as the script a/b/sN.py; return the folders that it put on sys.path."""
    scripts_folder = folder / "a/b"
    scripts_folder.mkdir(parents=True)
    scripts = []
    for number, body in enumerate(bodies):
        script = scripts_folder / f"s{number}.py"
        script.write_text(f"{HEAD}{body}\n")
        scripts.append(script)
    driver = (
        "import sys, json, runpy\n"
        "start = list(sys.path)\n"
        "for script in json.loads(sys.stdin.read()):\n"
        "    sys.path = list(start)\n"
        "    sys.argv = [script]\n"
        "    namespace = dict(__file__=script, __name__='__main__')\n"
        "    exec(compile(open(script).read(), script, 'exec'), namespace)\n"
        "    print(json.dumps([p for p in sys.path if isinstance(p, str) and p not in start]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver],
        input=json.dumps([str(s) for s in scripts]), cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        (s, [Path(p).resolve() for p in answer]) for s, answer in zip(scripts, answers, strict=True)
    ]


def counted(script: Path) -> list[tuple[int, Path]]:
    return static_sys_path(ast.parse(script.read_text()), script)


def test_static_sys_path_finds_what_python_does(tmp_path: Path) -> None:
    for script, real in run_all(tmp_path, COUNTED):
        source = script.read_text()
        found = counted(script)
        assert {path for _, path in found} == set(real) != set(), source
        assert {line for line, _ in found} == {source.count("\n")}, source


def test_static_sys_path_counts_nothing_that_is_in_doubt(tmp_path: Path) -> None:
    for script, _ in run_all(tmp_path, list(NOT_COUNTED.values())):
        assert counted(script) == [], script.read_text()


def test_static_sys_path_on_the_middle_of_a_script(tmp_path: Path) -> None:
    body = "import sys\nfrom os.path import dirname\nsys.path.append(dirname(__file__))\nimport x\n"
    script = tmp_path / "s.py"
    assert static_sys_path(ast.parse(body), script) == [(3, tmp_path)]
