"""The copy of a repository: what is copied, linked and left out; and the moved arguments."""

import os

import pytest

from quickwins_codemod import closure, workspace
from quickwins_codemod.workspace import WorkspaceError, differences, fingerprint, layout, moved

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links")


@pytest.fixture
def tree(tmp_path):
    """A repository with code, small and large data, a checkpoint, an environment and git."""
    root = tmp_path / "around" / "project"
    for folder in (
        "src",
        "data",
        "empty",
        ".git",
        "wandb/run",
        "env/bin",
        "src/__pycache__",
        "conda/conda-meta",
    ):
        (root / folder).mkdir(parents=True)
    (root / "train.py").write_text("import src.model\n")
    (root / "src" / "model.py").write_text("WIDTH = 8\n")
    (root / "src" / "__pycache__" / "model.pyc").write_bytes(b"x")
    (root / "data" / "small.csv").write_text("a,b\n")
    (root / "data" / "large.csv").write_bytes(b"0" * (workspace.SMALL + 1))
    (root / "env" / "pyvenv.cfg").write_text("")
    (root / ".git" / "HEAD").write_text("ref")
    (root / "latest.csv").symlink_to("data/large.csv")
    (tmp_path / "outside.csv").write_text("outside")
    (root / "outside.csv").symlink_to("../../outside.csv")
    (tmp_path / "around" / "beside.csv").write_text("beside")
    return root


def test_small_files_are_copied_and_large_ones_linked(tree, tmp_path):
    copy = layout(tree).copy(tmp_path / "place")

    assert copy == tmp_path / "place" / "project"
    assert (copy / "train.py").read_text() == "import src.model\n"
    assert not (copy / "data" / "small.csv").is_symlink()
    assert (copy / "data" / "large.csv").is_symlink()
    assert (copy / "data" / "large.csv").resolve() == tree / "data" / "large.csv"
    assert (copy / "empty").is_dir()


def test_environments_git_and_caches_are_left_out(tree, tmp_path):
    copy = layout(tree).copy(tmp_path / "place")

    assert sorted(p.name for p in copy.iterdir()) == [
        "data", "empty", "latest.csv", "outside.csv", "src", "train.py",
    ]  # fmt: skip
    assert [p.name for p in (copy / "src").iterdir()] == ["model.py"]


def test_links_of_the_tree_stay_within_the_copy_or_lead_outside_as_before(tree, tmp_path):
    copy = layout(tree).copy(tmp_path / "place")

    assert os.readlink(copy / "latest.csv") == "data/large.csv"
    assert (copy / "outside.csv").read_text() == "outside"


def test_what_stands_beside_the_tree_stands_beside_the_copy(tree, tmp_path):
    copy = layout(tree).copy(tmp_path / "place")

    assert (copy / ".." / "beside.csv").read_text() == "beside"


def test_a_folder_of_many_data_files_is_linked_as_a_whole(tree, tmp_path):
    (tree / "images" / "a").mkdir(parents=True)
    for number in range(workspace.MANY + 1):
        (tree / "images" / "a" / f"{number}.png").write_bytes(b"")
    copy = layout(tree).copy(tmp_path / "place")
    assert (copy / "images").is_symlink()

    (tree / "images" / "a" / "tools.py").write_text("")
    copy = layout(tree).copy(tmp_path / "another")
    assert not (copy / "images").is_symlink()
    assert (copy / "images" / "a" / "tools.py").is_file()


def test_removing_a_copy_leaves_what_its_links_lead_to(tree, tmp_path):
    before = fingerprint(tree)
    copy = layout(tree).copy(tmp_path / "place")
    (copy / "data").chmod(0o500)
    workspace.remove(tmp_path / "place")

    assert not (tmp_path / "place").exists()
    assert differences(before, fingerprint(tree)) == []
    assert (tmp_path / "around" / "beside.csv").read_text() == "beside"


def test_a_copy_that_cannot_be_made_is_one_line(tree, tmp_path):
    (tmp_path / "place").write_text("a file")

    with pytest.raises(WorkspaceError, match="cannot be copied"):
        layout(tree).copy(tmp_path / "place")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train.py").write_text("import src.model\n"),
        lambda root: (root / "data" / "large.csv").chmod(0o600),
        lambda root: (root / "new.txt").write_text(""),
        lambda root: (root / "data" / "small.csv").unlink(),
        lambda root: os.replace(root / "data" / "small.csv", root / "train.py"),
    ],
)
def test_a_fingerprint_tells_that_something_was_written(tree, change):
    before = fingerprint(tree)
    os.utime(tree / "train.py", (1, 1))
    assert differences(before, fingerprint(tree)) == ["train.py"]
    before = fingerprint(tree)
    change(tree)

    assert differences(before, fingerprint(tree)) != []


def test_a_fingerprint_leaves_out_what_a_copy_leaves_out(tree):
    before = fingerprint(tree)
    (tree / ".git" / "HEAD").write_text("other")
    (tree / "env" / "bin" / "python").write_text("")
    (tree / ".quickwins").mkdir()
    (tree / ".quickwins" / "x").write_text("")

    assert differences(before, fingerprint(tree)) == []


def test_arguments_that_are_paths_into_the_tree_lead_into_the_copy(tree, tmp_path):
    copy = tmp_path / "place" / "project"
    words = [
        "--epochs", "3", "data/small.csv", f"{tree}/data/small.csv", f"--out={tree}/models/",
        "../beside.csv", "--ratings=../../outside.csv", "../src/../data/small.csv", "../gone.csv",
        f"{tree}-other/x", "/", str(tree),
    ]  # fmt: skip

    assert moved(words, tree, copy, tree / "src")[:3] == words[:3]
    assert moved(words, tree, copy, tree)[3:] == [
        f"{copy}/data/small.csv", f"--out={copy}/models/", f"{tree.parent}/beside.csv",
        f"--ratings={tmp_path}/outside.csv", "../src/../data/small.csv",
        "../gone.csv", f"{tree}-other/x", "/", str(copy),
    ]  # fmt: skip


def test_the_environment_leads_into_the_copy_where_that_has_it(tree, tmp_path):
    copy = layout(tree).copy(tmp_path / "place")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tree / "src"), "/usr/lib", str(tree / "gone")]),
        "PATH": os.pathsep.join([str(tree / "env" / "bin"), "/usr/bin"]),
        "HOME": "/root",
    }

    assert workspace.moved_environment(environment, tree, copy) == {
        **environment,
        "PYTHONPATH": os.pathsep.join([str(copy / "src"), "/usr/lib", str(tree / "gone")]),
    }


# What a script imports


def imported(root, script="train.py", **files):
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [path.relative_to(root).as_posix() for path in closure.files(root / script, root)]


def test_imports_are_followed_through_files(tmp_path):
    found = imported(
        tmp_path, train="import a.b\nfrom c import d", a__b="from .e import x", a__e="import c.f",
        c__d="", c__f="", other="",
    )  # fmt: skip

    assert found == ["a/b.py", "a/e.py", "c/d.py", "c/f.py", "train.py"]


def test_packages_are_followed_with_their_init(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("from . import loader")
    found = imported(tmp_path, train="def f():\n    from pkg import x", pkg__loader="import os")

    assert found == ["pkg/__init__.py", "pkg/loader.py", "train.py"]


def test_a_folder_that_the_script_puts_on_its_path_counts(tmp_path):
    text = (
        "import sys\nfrom pathlib import Path\n"
        "sys.path.append(str(Path(__file__).parent.parent / 'lib'))\nimport tools\n"
    )
    found = imported(tmp_path, "scripts/train.py", scripts__train=text, lib__tools="")

    assert found == ["lib/tools.py", "scripts/train.py"]


def test_the_first_folder_on_the_path_wins_unless_others_are_put_in_front(tmp_path):
    files = {"a__train": "import tools", "a__tools": "", "tools": ""}
    assert imported(tmp_path, "a/train.py", **files) == ["a/tools.py", "a/train.py"]

    files["a__train"] = "import sys, tools\nsys.path.insert(0, FOLDER)"
    assert imported(tmp_path, "a/train.py", **files) == ["a/tools.py", "a/train.py", "tools.py"]


def test_modules_that_are_imported_by_name_count(tmp_path):
    text = "import importlib\nimportlib.import_module('models.ncf')"
    assert imported(tmp_path, train=text, models__ncf="") == ["models/ncf.py", "train.py"]


def test_what_cannot_be_parsed_imports_nothing(tmp_path):
    found = imported(tmp_path, train="import bad, loop", bad="x = = 1", loop="import train")
    assert found == ["bad.py", "loop.py", "train.py"]
