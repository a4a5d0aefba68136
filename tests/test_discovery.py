"""Discovery on real trees, with git itself as the judge of what is ignored."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickwins_codemod import bundle
from quickwins_codemod.discovery import Found, PathError, find_python_files, project_root

GIT_ENV = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "XDG_CONFIG_HOME"):
    GIT_ENV.pop(name, None)


def make(root: Path, tree: dict[str, str]) -> None:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, env=GIT_ENV, check=True, capture_output=True, text=True
    )
    return done.stdout


def names(found: Found, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.files]


def find(root: Path, *paths: str, exclude: tuple[str, ...] = ()) -> list[str]:
    return names(find_python_files([root / p for p in paths or (".",)], root, exclude), root)


def as_git_lists(root: Path, folder: Path | None = None) -> list[str]:
    listed = git(folder or root, "ls-files", "-co", "--exclude-standard", "--full-name", "-z")
    return sorted(name for name in listed.split("\0") if name.endswith((".py", ".pyw")))


def test_takes_python_files_sorted_and_once(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys(["b.py", "a.pyw", "a.pyi", "d/x.py", "d-e/y.py", "n.txt"], ""))
    assert find(tmp_path, ".", "d", "b.py") == ["a.pyw", "b.py", "d/x.py", "d-e/y.py"]


def test_skips_folders_that_tools_make(tmp_path: Path) -> None:
    folders = [
        ".git", ".hg", "__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache",
        ".ruff_cache", ".quickwins", ".ipynb_checkpoints",
    ]  # fmt: skip
    make(tmp_path, {f"a/{folder}/x.py": "" for folder in folders})
    make(tmp_path, dict.fromkeys(["myenv/pyvenv.cfg", "myenv/lib/x.py", "venv/x.py"], ""))
    make(tmp_path, {"build/x.py": ""})
    assert find(tmp_path) == ["build/x.py", "venv/x.py"]


def test_a_root_that_is_itself_an_environment_is_walked(tmp_path: Path) -> None:
    make(tmp_path, {"pyvenv.cfg": "", "x.py": ""})
    assert find(tmp_path) == ["x.py"]


def test_skips_the_runtime_that_apply_places(tmp_path: Path) -> None:
    for outcome in bundle.plan(tmp_path, tmp_path):
        assert outcome.after is not None
        make(tmp_path, {outcome.path: outcome.after.decode()})
    make(tmp_path, {"x.py": "", "other/quickwins_runtime/__init__.py": "# my own\n"})
    runtime = "quickwins_runtime/__init__.py"
    expected = ["other/quickwins_runtime/__init__.py", "x.py"]
    assert find(tmp_path) == expected
    assert find(tmp_path, runtime, "quickwins_runtime") == []


NESTED = {
    ".gitignore": "*.gen.py\nbuild\n/only_top.py\nlogs/*.py\n!logs/keep.py\n# note\n\\#odd.py\n",
    "a/.gitignore": "!special.gen.py\n/local/\n*\n!*/\n!*.py\r\nsecret?.py\n",
    "a/b/.gitignore": "!secret1.py\nfoo/**\n!foo/keep.py\n[xy].py\n**/deep/*.py\n",
    "build/.gitignore": "!*\n",
}
FILES = [
    "x.gen.py", "special.gen.py", "only_top.py", "logs/a.py", "logs/keep.py", "#odd.py",
    "a/special.gen.py", "a/only_top.py", "a/local/x.py", "a/b/local/x.py", "a/secret1.py",
    "a/b/secret1.py", "a/b/secret2.py", "a/b/foo/x.py", "a/b/foo/keep.py", "a/b/x.py", "a/b/z.py",
    "a/b/c/deep/q.py", "build/x.py", "a/build/x.py", "a/logs/x.py",
]  # fmt: skip


@pytest.mark.parametrize("below", [".", "a", "a/b"])
def test_nested_gitignore_agrees_with_git(tmp_path: Path, below: str) -> None:
    make(tmp_path, {**dict.fromkeys(FILES, ""), **NESTED})
    git(tmp_path, "init", "-q")
    (tmp_path / ".git/info/exclude").write_text("z.py\n")
    expected = as_git_lists(tmp_path, tmp_path / below)
    assert expected
    root = tmp_path / below
    found = find_python_files([root], root, [])
    assert sorted(names(found, tmp_path)) == expected


segment = st.sampled_from(["a", "b", "*", "a*", "x.py", "*.py", "?.py", "[!a]*", "y.py"])
pattern = st.builds(
    lambda sign, anchor, parts, end: sign + anchor + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(segment, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", "/**/", "  "]),
)
ignore_file = st.lists(pattern, max_size=5).map("\n".join)
EVERYWHERE = [f"{folder}{name}" for folder in ("", "a/", "b/", "a/b/", "a/a/", "b/a/b/")
              for name in ("x.py", "y.py", "ab.py")]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(top=ignore_file, middle=ignore_file, inner=ignore_file)
def test_any_gitignore_agrees_with_git(top: str, middle: str, inner: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make(root, dict.fromkeys(EVERYWHERE, ""))
        make(root, {".gitignore": top, "a/.gitignore": middle, "a/b/.gitignore": inner})
        git(root, "init", "-q")
        assert sorted(find(root)) == as_git_lists(root)


def test_gitignore_holds_without_git_too(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "gen/\n", "gen/x.py": "", "x.py": "", "gen/sub/y.py": ""})
    assert find(tmp_path) == ["x.py"]
    assert find(tmp_path, "gen") == ["gen/sub/y.py", "gen/x.py"], "a folder that is named is walked"


def test_a_linked_work_tree_reads_the_common_exclude_file(tmp_path: Path) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    make(main, {"x.py": ""})
    git(main, "init", "-q")
    git(main, "add", ".")
    git(main, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "m")
    git(main, "worktree", "add", "-q", str(linked))
    (main / ".git/info").mkdir(exist_ok=True)
    (main / ".git/info/exclude").write_text("hidden.py\n")
    make(linked, {"hidden.py": "", "sub/hidden.py": "", "seen.py": ""})
    assert find(linked) == as_git_lists(linked) == ["seen.py", "x.py"]


def test_a_repository_within_has_its_own_rules(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "x.py\n", "x.py": "", "inner/x.py": "", "inner/y.py": ""})
    make(tmp_path, {"inner/.gitignore": "y.py\n"})
    git(tmp_path, "init", "-q")
    git(tmp_path / "inner", "init", "-q")
    assert find(tmp_path) == ["inner/x.py"]


def test_named_files_are_taken_whatever_gitignore_says(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*\n", "x.py": "", "train": "", "stubs.pyi": ""})
    assert find(tmp_path) == []
    assert find(tmp_path, "x.py", "train", "stubs.pyi") == ["stubs.pyi", "train", "x.py"]


def test_exclude_holds_for_named_files_too(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys(["a/x.py", "a/b/x.py", "c.txt", "keep.py"], ""))
    assert find(tmp_path, exclude=("a/b",)) == ["a/x.py", "keep.py"]
    assert find(tmp_path, "a/x.py", "a/b", "keep.py", exclude=("/a/",)) == ["keep.py"]
    assert find(tmp_path, "c.txt", "keep.py", exclude=("*.txt",)) == ["keep.py"]
    assert find(tmp_path, exclude=("./a/x.py", "*.py", "!keep.py")) == ["keep.py"]
    with pytest.raises(PathError, match="--exclude: '!' is not a pattern"):
        find(tmp_path, exclude=("!",))


def test_links_are_followed_to_files_inside_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    make(tmp_path, {"root/real.py": "", "root/script": "", "outside/o.py": "", "root/d/x.py": ""})
    (root / "alias.py").symlink_to("real.py")
    (root / "second.py").symlink_to("script")
    (root / "first.py").symlink_to(root / "script")
    (root / "out.py").symlink_to(outside / "o.py")
    (root / "outdir").symlink_to(outside)
    (root / "d/up").symlink_to(root)
    (root / "d/folder.py").symlink_to(root / "d")
    (root / "loop.py").symlink_to("loop.py")
    (root / "broken.py").symlink_to("nowhere.py")
    found = find_python_files([root], root, [])
    assert names(found, root) == ["d/x.py", "first.py", "real.py"]
    assert found.problems == []

    found = find_python_files([root / "out.py", root / "loop.py", root / "broken.py"], root, [])
    assert found.files == []
    assert [(p.path.name, p.code) for p in found.problems] == [
        ("out.py", "QW003"), ("loop.py", "QW003"), ("broken.py", "QW003"),
    ]  # fmt: skip
    assert "outside" in found.problems[0].message
    assert names(find_python_files([root / "alias.py"], root, []), root) == ["alias.py"]


def test_pipes_and_sockets_do_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.py")
        assert find_python_files([tmp_path], tmp_path, []) == Found()
        found = find_python_files([Path("pipe.py"), Path("socket.py")], tmp_path, [])
    assert found.files == []
    assert [p.message for p in found.problems] == ["is not a regular file"] * 2


def test_a_folder_that_may_not_be_listed_is_a_problem() -> None:
    root = Path(tempfile.mkdtemp(dir="/tmp")).resolve()  # pytest's own are closed to others
    root.chmod(0o755)
    make(root, {"x.py": "", "shut/y.py": "", "z/z.py": ""})
    (root / "shut").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may list everything
        found = find_python_files([root], root, [])
    finally:
        os.seteuid(user)
        (root / "shut").chmod(0o755)
        shutil.rmtree(root)
    assert names(found, root) == ["x.py", "z/z.py"]
    assert found.problems == [(root / "shut", "QW003", "cannot be listed: Permission denied")]


def test_odd_names(tmp_path: Path) -> None:
    odd = ["a b.py", "é.py", "new\nline.py", "[x].py", "back\\slash.py", "-f.py", "!n.py"]
    make(tmp_path, dict.fromkeys([*odd, "d*/x.py"], ""))
    (tmp_path / os.fsdecode(b"\xff.py")).touch()
    (tmp_path / ".gitignore").write_text("\\[x\\].py\né.py\n/d\\*/\n")
    assert set(find(tmp_path)) == {*odd, os.fsdecode(b"\xff.py")} - {"[x].py", "é.py"}


def test_paths_that_do_not_exist_or_lie_outside(tmp_path: Path) -> None:
    with pytest.raises(PathError, match="nope.py: no such file or directory"):
        find(tmp_path, "nope.py")
    make(tmp_path, {"a/x.py": "", "b/y.py": ""})
    with pytest.raises(PathError, match="y.py: lies outside"):
        find_python_files([tmp_path / "b/y.py"], tmp_path / "a", [])


def test_project_root(tmp_path: Path) -> None:
    make(tmp_path, {"a/b/x.py": "", "a/c/y.py": "", "ab/z.py": ""})
    (tmp_path / "link").symlink_to(tmp_path / "a")
    a = tmp_path / "a"
    assert project_root([a / "b"], tmp_path) == a / "b"
    assert project_root([Path("b")], a) == a / "b"
    assert project_root([Path("b/x.py")], a) == a
    assert project_root([Path("b"), Path("c")], a) == a
    assert project_root([a / "b/x.py"], a / "c") == a / "b"
    assert project_root([a / "b/x.py", a / "c"], tmp_path / "ab") == a
    assert project_root([a, tmp_path / "ab"], a) == tmp_path
    assert project_root([tmp_path / "link"], tmp_path) == a
    assert project_root([Path("../c/../b")], a / "c") == a / "b"
    assert project_root([], a) == a
    with pytest.raises(PathError, match="nope"):
        project_root([Path("nope")], a)


def test_importing_is_light() -> None:
    code = (
        "import sys, quickwins_codemod.discovery, quickwins_codemod.bundle,"
        " quickwins_codemod.writing;"
        "print({'libcst', 'torch', 'rich', 'click', 'pathspec'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
