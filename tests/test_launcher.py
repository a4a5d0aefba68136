"""A script under the launcher does what it does under plain Python, and nothing to the original."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import helpers
import pytest
from launching import Job, launch_all

from quickwins_codemod import trials
from quickwins_codemod.attempting import LAUNCHER


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "original").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "copy"


def both(copy, text, *arguments, name="train.py", seed=None, **options):
    """Run a script plainly and launched; return both results."""
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text(textwrap.dedent(text))
    return [
        subprocess.run(
            [sys.executable, *words, name, *arguments], cwd=copy, capture_output=True, text=True,
            timeout=60, **options,
        )
        for words in ([], launcher(copy, seed))
    ]  # fmt: skip


def launcher(copy, seed=None):
    place = copy.parent
    launch = {"original": str(place / "original"), "copy": str(copy), "seed": seed}
    (place / "out" / "launch.json").write_text(json.dumps(launch))
    return [str(LAUNCHER), str(place / "out")]


def seen(copy):
    return trials.read_observation(copy.parent / "out")


def same(plain, launched):
    assert (launched.stdout, launched.stderr) == (plain.stdout, plain.stderr)
    assert launched.returncode == plain.returncode
    return launched


# As plain Python


def test_what_a_script_sees_of_itself(copy):
    text = """\
        import sys, __main__
        print(__name__, __file__, sys.argv, sys.path[0], __doc__, __package__, __spec__)
        print(__main__.__dict__ is globals(), sorted(k for k in globals() if k[:2] != "__"))
        print("torch" in sys.modules, "json" in sys.modules and False)
        """
    done = same(*both(copy, text, "--epochs", "3", name="sub/train.py"))

    assert "'sub/train.py', '--epochs', '3'" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit('no data')",
        "import sys; sys.exit()",
        "raise SystemExit(None)",
        "import argparse; argparse.ArgumentParser(prog='x').parse_args(['--nothing'])",
        "def load():\n    return {}['rating']\n\nload()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('bad') from e",
        "raise KeyboardInterrupt" if sys.platform == "win32" else "print('é')",
        "epochs = = 3",
    ],
)
def test_the_end_of_a_script(copy, text):
    same(*both(copy, text))


def test_processes_that_a_script_spawns(copy):
    text = """\
        import multiprocessing

        def square(number):
            return number * number

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print(pool.map(square, [1, 2, 3]))
        """
    assert "[1, 4, 9]" in same(*both(copy, text)).stdout


def test_handlers_at_exit_run_before_the_notes_are_written(copy):
    text = """\
        import atexit
        atexit.register(print, "at exit")
        raise OSError("gone")
        """
    same(*both(copy, text))

    assert seen(copy).failure == trials.Failure("OSError", "gone", "train.py", 3)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("import helper\nhelper.load()", ("KeyError", "'rating'", "helper.py", 2)),
        ("import json\njson.loads('{')", ("json.decoder.JSONDecodeError", None, "train.py", 2)),
        ("import broken", ("SyntaxError", None, "broken.py", 1)),
        ("import sys\nsys.exit('no data')", ("SystemExit", "no data", "train.py", 2)),
        ("print(1)", None),
    ],
)
def test_what_ended_a_script_is_noted_with_a_line_of_its_own(copy, text, failure):
    (copy / "helper.py").write_text("def load():\n    return {}['rating']\n")
    (copy / "broken.py").write_text("epochs = = 3\n")
    both(copy, text)
    found = seen(copy).failure

    if failure is None:
        assert found is None
    else:
        kind, message, path, line = failure
        assert (found.type, found.path, found.line) == (kind, path, line)
        assert message in (None, found.message)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_script_that_is_told_to_end_leaves_its_notes(copy):
    (copy / "train.py").write_text("import time\nprint('on', flush=True)\ntime.sleep(60)\n")
    words = [sys.executable, *launcher(copy), "train.py"]
    child = subprocess.Popen(words, cwd=copy, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"on\n"
    child.terminate()

    assert child.wait(20) == -signal.SIGTERM
    child.stdout.close()
    assert seen(copy) is not None


# The original


GUARDED = {
    "written anew": "open('big.bin', 'w').write('new')",
    "appended to": "open('big.bin', 'a').write('new')",
    "changed in place": "f = open('big.bin', 'r+b'); f.write(b'new'); f.close()",
    "opened by number": "import os; os.write(os.open('big.bin', os.O_RDWR), b'new')",
    "cut": "import os; os.truncate('big.bin', 1)",
    "given another mode": "import os; os.chmod('big.bin', 0o600)",
    "removed": "import os; os.remove('big.bin')",
    "replaced": "import os; open('n', 'w').write('new'); os.replace('n', 'big.bin')",
    "moved": "import shutil; shutil.move('big.bin', 'other.bin')",
    "beside others": "open('data/new.csv', 'w').write('new')",
    "of others": "open('data/a.csv', 'w').write('new')",
    "in a new folder": "import os; os.makedirs('data/sub/deep'); open('data/sub/deep/x', 'w')",
    "folder removed": "import shutil; shutil.rmtree('data')",
    "data base": "import sqlite3; sqlite3.connect('data/a.db').execute('create table t (x)')",
}


@pytest.mark.skipif(os.name == "nt", reason="links")
@pytest.mark.parametrize("text", GUARDED.values(), ids=GUARDED)
def test_nothing_is_written_through_a_link(copy, text):
    original = copy.parent / "original"
    (original / "data").mkdir()
    (original / "big.bin").write_text("old bytes")
    (original / "data" / "a.csv").write_text("old")
    (original / "data" / "a.db").write_bytes(b"")
    (copy / "big.bin").symlink_to(original / "big.bin")
    (copy / "data").symlink_to(original / "data")
    before = {p: (p.read_bytes(), p.stat()) for p in original.rglob("*") if p.is_file()}
    (copy / "train.py").write_text(text)
    done = subprocess.run(
        [sys.executable, *launcher(copy), "train.py"], cwd=copy, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert {p for p in original.rglob("*") if p.is_file()} == before.keys()
    for path, (data, about) in before.items():
        assert path.read_bytes() == data
        assert path.stat()[:4] == about[:4] and path.stat().st_mtime_ns == about.st_mtime_ns


def test_what_is_added_to_a_linked_file_follows_its_old_content(copy):
    (copy.parent / "original" / "log.txt").write_text("old, ")
    (copy / "log.txt").symlink_to(copy.parent / "original" / "log.txt")
    (copy / "train.py").write_text(
        "open('log.txt', 'a').write('new'); print(open('log.txt').read())"
    )
    done = subprocess.run(
        [sys.executable, *launcher(copy), "train.py"], cwd=copy, capture_output=True, text=True
    )

    assert done.stdout == "old, new\n"


@pytest.mark.parametrize(
    "write",
    ["open({!r}, 'w')", "import os; os.remove({!r})", "import os; os.mkdir({!r} + '.d')"],
)
def test_a_write_by_an_absolute_path_into_the_original_is_refused(copy, write):
    target = copy.parent / "original" / "model.pt"
    target.write_text("old")
    (copy / "train.py").write_text(write.format(str(target)))
    done = subprocess.run(
        [sys.executable, *launcher(copy), "train.py"], cwd=copy, capture_output=True, text=True
    )

    assert done.returncode == 1 and target.read_text() == "old"
    assert "it would write to the original tree" in done.stderr
    assert seen(copy).failure.type == "PermissionError"


def test_a_file_that_is_written_elsewhere_is_noted(copy, tmp_path_factory, monkeypatch):
    elsewhere = copy.parent / "elsewhere.txt"
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
    both(copy, f"open({str(elsewhere)!r}, 'w'); import tempfile; tempfile.mkstemp()")

    assert seen(copy).wrote_outside == (str(elsewhere),)


def test_a_package_on_the_path_of_the_original_is_taken_from_the_copy(copy):
    for tree, value in ((copy.parent / "original", "the original"), (copy, "the copy")):
        (tree / "src").mkdir()
        (tree / "src" / "package.py").write_text(f"WHERE = {value!r}\n")
    environment = {**os.environ, "PYTHONPATH": str(copy.parent / "original" / "src")}
    _, done = both(copy, "import package; print(package.WHERE)", env=environment)

    assert done.stdout == "the copy\n" and seen(copy).foreign == ()
    assert seen(copy).imported == ("src/package.py", "train.py")


def test_a_module_of_the_original_that_is_imported_all_the_same_is_noted(copy):
    (copy.parent / "original" / "package.py").write_text("")
    text = f"import sys; sys.path.append({str(copy.parent / 'original')!r}); import package"
    both(copy, text)

    assert seen(copy).foreign == ("package",)


# Random streams

DRAWS = """\
import random, sys
import numpy as np, torch
print(random.random(), np.random.rand(), torch.rand(1).item())
random.seed(42); np.random.seed(42); torch.manual_seed(42)
print(random.random(), np.random.rand(), torch.rand(1).item())
print(np.random.default_rng(42).random(), torch.Generator().manual_seed(42).initial_seed())
print(np.random.RandomState(42).rand())
random.seed(); np.random.seed(None)
"""


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    place = tmp_path_factory.mktemp("draws")
    (place / "train.py").write_text(DRAWS)
    jobs = [Job(place / "plain", place, "train.py", launched=False)]
    jobs += [
        Job(place / f"{i}", place, "train.py", seed=seed) for i, seed in enumerate((0, 0, 1, 2))
    ]
    done = launch_all(jobs)
    assert [job.code for job in done] == [0] * 5, done[1].err
    return [job.out.splitlines() for job in done]


def test_the_first_repetition_leaves_a_scripts_own_seeds(draws):
    plain, first, again, *_ = draws

    assert first[1:] == plain[1:]
    assert first == again


def test_the_others_shift_them_all(draws):
    _, first, _, second, third = draws

    for line in (0, 1):
        numbers = [number for run in (first, second, third) for number in run[line].split()]
        assert len(set(numbers)) == 9


def test_generators_of_their_own_stay(draws):
    _, first, _, second, third = draws

    assert first[2:] == second[2:] == third[2:]


# Training


def test_training_is_the_same_bit_for_bit(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("pandas")

    tree = tmp_path / "recsys"
    shutil.copytree(
        helpers.SAMPLE, tree, ignore=shutil.ignore_patterns("__pycache__", "wandb", ".quickwins")
    )
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "40", "--items", "40"], cwd=tree,
        check=True, capture_output=True,
    )  # fmt: skip
    words = (
        "--ratings-path", "data/ratings.csv", "--movies-path", "data/movies.csv", "--epochs", "1",
    )  # fmt: skip
    scripts = [f"{name}/train_with_wandb.py" for name in ("two_tower_model", "sequential_models")]
    jobs = [
        Job(
            tmp_path / f"{number}{launched}", tree, script,
            (*words, "--output-dir", str(tmp_path / f"models{number}{launched}")),
            launched=launched,
        )
        for number, script in enumerate(scripts)
        for launched in (False, True)
    ]  # fmt: skip
    done = launch_all(jobs)

    for number, (plain, launched) in enumerate(zip(done[::2], done[1::2])):
        assert (plain.code, launched.code) == (0, 0), launched.err
        assert launched.seen.optimizers[0].steps > 2 and not launched.seen.problems
        (before,) = (tmp_path / f"models{number}False").glob("best*")
        (after,) = (tmp_path / f"models{number}True").glob("best*")
        weights = [
            torch.load(path, weights_only=False)["model_state_dict"] for path in (before, after)
        ]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_torch_is_imported_when_the_script_imports_it(copy):
    text = """\
        import os, sys
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch
        print(torch.get_num_threads())
        """
    (copy / "train.py").write_text(textwrap.dedent(text))
    environment = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    done = subprocess.run(
        [sys.executable, *launcher(copy, 0), "train.py"], cwd=copy, capture_output=True, text=True,
        env=environment,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_what_the_launcher_imports_is_in_the_standard_library():
    import ast

    ours = {path.stem for path in LAUNCHER.parent.glob("*.py")}
    for path in LAUNCHER.parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "torch", (path.name, name)
                assert top not in ours


def test_what_was_logged_is_kept_by_key_unless_it_was_logged_for_every_batch():
    import numpy as np

    from quickwins_codemod.child import watching

    watch = watching.Watch(guard=None)
    given = []
    for epoch in range(3):
        for _ in range(400):
            watch._log(lambda run, data: given.append(data), None, {"batch/loss": 0.5})
        watch._log(
            lambda run, data: given.append(data), None,
            {"val/rmse": np.float32(0.5 + epoch), "note": "x", "bad": float("nan"), "flag": True},
        )  # fmt: skip
    found = watch.found()

    assert found["values"] == {"val/rmse": [0.5, 1.5, 2.5]}
    assert found["not_finite"] == ["bad"] and len(given) == 1203
    assert set(found["logged"]) == {"batch/loss", "val/rmse", "note", "bad", "flag"}
