"""The command line as a user meets it: streams, exit codes, and one line for whatever goes wrong.

Most of it runs in a process of its own, on the made-up rule of fake_quickwins.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FAKE = str(Path(__file__).with_name("fake_quickwins.py"))
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def environment(**extra: str) -> dict[str, str]:
    hidden = ("PRE_COMMIT", "QUICKWINS_DEBUG", "NO_COLOR", "GIT_DIR", "GIT_INDEX_FILE")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "TERM": "xterm", **extra}


def quickwins(
    here: Path, *arguments: str, real: bool = False, **extra: str
) -> subprocess.CompletedProcess[bytes]:
    start = ["-m", "quickwins_codemod"] if real else [FAKE]
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=here, env=environment(**extra),
        capture_output=True, timeout=60,
    )  # fmt: skip


def write(here: Path, **files: str) -> None:
    for name, text in files.items():
        (here / f"{name}.py").write_text(text)


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what was said on standard error, which must be a single line and no traceback."""
    said = done.stderr.decode()
    assert said.count("\n") == 1 and said.startswith("quickwins: "), said
    return said.removeprefix("quickwins: ").rstrip("\n")


# Exit codes: 2 before 3 before 1 before 0


@pytest.mark.parametrize(
    ("files", "arguments", "code"),
    [
        ({"a": "x"}, "diff .", 0),
        ({"a": "old"}, "diff .", 0),
        ({"a": "broken old", "b": "old"}, "diff .", 3),
        ({"a": "x"}, "check .", 0),
        ({"a": "cannot"}, "check .", 0),
        ({"a": "new"}, "check .", 0),
        ({"a": "old"}, "check .", 1),
        ({"a": "broken old", "b": "old"}, "check .", 3),
        ({"a": "broken old", "b": "old"}, "check . --exclude a.py", 1),
        ({"a": "broken old", "b": "old"}, "check . --select nothing", 2),
        ({"a": "broken old", "b": "old"}, "check . nowhere", 2),
        ({"a": "old"}, "check . --ignore made-up", 0),
        ({"a": "old"}, "check . --ignore QW951,made_up", 0),
        ({"a": "old"}, "apply .", 0),
        ({"a": "broken old", "b": "old"}, "apply .", 3),
        ({}, "diff .", 0),
        ({}, "explain", 0),
        ({}, "explain made-up", 0),
        ({}, "explain QW003", 0),
        ({}, "--version", 0),
        ({}, "--help", 0),
    ],
)
def test_exit_codes(here: Path, files: dict[str, str], arguments: str, code: int) -> None:
    write(here, **files)
    assert quickwins(here, *shlex.split(arguments)).returncode == code
    written = quickwins(here, *shlex.split(arguments), "--format", "json")
    if code != 2 and files:
        assert json.loads(written.stdout)["version"] == 1


# What goes where


def test_the_diff_goes_to_standard_output_and_the_summary_beside_it(here: Path) -> None:
    write(here, a="old\n")
    done = quickwins(here, "diff", ".")
    assert done.stdout.startswith(b"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n")
    assert b"To change" not in done.stdout and b"\x1b" not in done.stdout + done.stderr
    assert b"a.py  QW901 old became new (line 1)" in done.stderr
    assert b"Next: quickwins apply .   # write it\n" in done.stderr
    assert (here / "a.py").read_text() == "old\n"


def test_nothing_to_change_is_said(here: Path) -> None:
    write(here, a="x")
    done = quickwins(here, "diff", ".")
    assert done.stdout == b""
    assert done.stderr == b"1 Python file, 0 candidates: nothing to change.\n"


@pytest.mark.parametrize("start", [".", "sub"])
def test_a_redirected_diff_is_a_patch(here: Path, start: str) -> None:
    files = {"a.py": b"x\r\nold\r\n", "sub/b.py": b"# coding: latin-1\n\xe9 = 'old'"}
    (here / "sub").mkdir()
    for name, data in files.items():
        (here / name).write_bytes(data)
    patch = quickwins(here / start, "diff", ".", "--patch", str(here / "x.patch")).stdout
    assert (here / "x.patch").read_bytes() == patch
    subprocess.run(["git", "apply", "-"], cwd=here / start, input=patch, check=True)
    after = {name: (here / name).read_bytes() for name in files}
    assert after["sub/b.py"] == files["sub/b.py"].replace(b"old", b"new")
    assert after["a.py"] == (
        files["a.py"].replace(b"old", b"new") if start == "." else files["a.py"]
    )
    assert (here / start / "quickwins_runtime/__init__.py").exists()


def test_a_page_is_written_beside_the_diff(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/a.py").write_text("old\n")
    done = quickwins(here / "sub", "diff", ".", "--html", "../page.html", "--factor", "2")
    assert done.returncode == 0 and done.stdout.startswith(b"diff --git a/sub/a.py b/sub/a.py\n")
    assert b"\nPage: ../page.html\nNext: quickwins apply --factor 2.0 .   # write it\n" in done.stderr
    page = (here / "page.html").read_text(encoding="utf-8")
    assert '<pre class="command">quickwins apply --factor 2.0 .</pre>' in page
    assert '<section class="hunk" id="sub/a.py:QW901">' in page and "writes <code>new" in page
    assert (here / "sub/a.py").read_text() == "old\n"
    machine = quickwins(here, "diff", ".", "--html", "page.html", "--format", "json")
    assert machine.stderr == b"" and json.loads(machine.stdout)["summary"]["changed"] == 1
    assert "sub/a.py" in (here / "page.html").read_text(encoding="utf-8")


def test_a_page_without_changes_keeps_the_exit_code(here: Path) -> None:
    write(here, a="x", b="broken cannot")
    done = quickwins(here, "diff", ".", "--html", "page.html")
    assert (done.returncode, done.stdout) == (3, b"")
    page = (here / "page.html").read_text(encoding="utf-8")
    assert "<h1>Nothing to change</h1>" in page and "b.py:1" in page


def test_check_prints_a_line_for_each_finding(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/a.py").write_text("x\n  old\n")
    write(here, b="broken cannot", c="new", d="careful new\ncannot")
    assert quickwins(here, "check", ".").stdout.decode().splitlines() == [
        "b.py:1:3: QW001 cannot be parsed",
        "d.py:1:1: QW910 be careful",
        "d.py:2:1: QW910 it cannot be done",
        "sub/a.py:2:3: QW901 old became new",
    ]
    done = quickwins(here, "check", "sub")
    assert done.stdout == b"sub/a.py:2:3: QW901 old became new\n", "a path that can be opened here"


def test_the_machine_report_is_alone_on_standard_output(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/a.py").write_bytes(b"old \xe9\n")
    done = quickwins(here, "diff", "sub", "--format", "json")
    assert done.stderr == b""
    report = json.loads(done.stdout)
    assert report["files"][0]["path"] == "a.py", "relative to the root that was given"
    assert report["summary"]["changed"] == 1


def test_the_next_command_repeats_what_was_asked(here: Path) -> None:
    (here / "my scripts").mkdir()
    (here / "my scripts/a.py").write_text("old")
    done = quickwins(
        here, "diff", "--factor=2", "--no-made-up-logged", "--select", "QW901", "--exclude", "x*",
        "--select=other_rule", "--workers", "1", "--patch", "p", "my scripts",
    )  # fmt: skip
    said = next(line for line in done.stderr.decode().splitlines() if line.startswith("Next: "))
    command = said.removeprefix("Next: ").partition("   #")[0]
    assert command == (
        "quickwins apply --select QW901 --select other_rule --exclude 'x*' --factor 2.0 "
        "--no-made-up-logged 'my scripts'"
    )
    assert quickwins(here, *shlex.split(command)[1:]).returncode == 0
    assert (here / "my scripts/a.py").read_text() == "new"


@posix
def test_on_a_terminal_everything_is_one_coloured_page(here: Path) -> None:
    write(here, a="old\n")
    shown = on_terminal(here, "diff", ".")
    assert "\x1b[32m+new\x1b[0m\r\n" in shown
    assert shown.index("+new") < shown.index("To change")
    plain = on_terminal(here, "diff", ".", NO_COLOR="1")
    assert "\x1b" not in plain and "+new\r\n" in plain


def on_terminal(here: Path, *arguments: str, **extra: str) -> str:
    import pty

    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, FAKE, *arguments], cwd=here, env=environment(**extra),
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            data = os.read(control, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(control)
    assert process.wait(timeout=60) == 0
    return shown.decode()


# Applying


def test_apply_writes_and_a_second_run_finds_nothing(here: Path) -> None:
    write(here, a="old\n")
    done = quickwins(here, "apply", ".")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (here / "a.py").read_text() == "new\n"
    said = done.stdout.decode()
    assert "Changed: 1 file\n  a.py  QW901 " in said and "Added: quickwins_runtime/" in said
    assert "Next: git add a.py quickwins_runtime/__init__.py" in said
    again = quickwins(here, "apply", ".")
    assert (again.returncode, b"nothing to change" in again.stdout) == (0, True)


def test_apply_leaves_unstaged_edits_alone(here: Path) -> None:
    write(here, a="x\n", b="old\n")
    subprocess.run(["git", "add", "."], cwd=here, check=True)
    write(here, a="old\n")
    done = quickwins(here, "apply", ".")
    assert done.returncode == 3
    assert b"QW007 has changes that are not staged\n      a.py:1:1\n" in done.stdout
    assert ((here / "a.py").read_text(), (here / "b.py").read_text()) == ("old\n", "new\n")
    assert quickwins(here, "apply", ".", "--allow-dirty").returncode == 0
    assert (here / "a.py").read_text() == "new\n"


def test_no_runtime_for_a_script_that_was_left_alone(here: Path) -> None:
    write(here, a="x\n")
    subprocess.run(["git", "add", "."], cwd=here, check=True)
    write(here, a="old\n")
    done = quickwins(here, "apply", ".", "--format", "json")
    assert [file["status"] for file in json.loads(done.stdout)["files"]] == ["error"]
    assert not (here / "quickwins_runtime").exists()


def test_under_pre_commit_an_apply_that_wrote_fails_once(here: Path) -> None:
    write(here, a="old\n", b="x")
    done = quickwins(here, "apply", "a.py", "b.py", PRE_COMMIT="1")
    assert done.returncode == 1
    said = one_line(done)
    stage = said.partition("then: ")[2]
    assert stage.startswith("git add a.py quickwins_runtime/__init__.py")
    subprocess.run(shlex.split(stage), cwd=here, check=True)
    status = subprocess.run(["git", "status", "-s"], cwd=here, capture_output=True, text=True)
    assert "A  quickwins_runtime/__init__.py" in status.stdout and "A  a.py" in status.stdout
    assert quickwins(here, "apply", "a.py", "b.py", PRE_COMMIT="1").returncode == 0


def test_outside_a_repository_no_git_is_suggested(tmp_path: Path) -> None:
    write(tmp_path, a="old\n")
    assert b"git add" not in quickwins(tmp_path, "apply", ".").stdout


# Configuration


def test_configuration_and_flags_meet(here: Path) -> None:
    write(here, a="old", b="cannot")
    (here / "pyproject.toml").write_text("[tool.quickwins]\nignore = ['made-up']\n")
    assert quickwins(here, "check", ".").returncode == 0
    assert quickwins(here, "check", ".", "--select", "made-up").returncode == 1
    (here / "other.toml").write_text("[tool.quickwins]\nper-file-ignores = {'a.py' = ['QW901']}\n")
    assert quickwins(here, "check", ".", "--config", "other.toml").returncode == 0


def test_a_folder_that_is_left_out_stays_out_when_a_part_of_the_tree_is_named(here: Path) -> None:
    (here / "sub/legacy").mkdir(parents=True)
    (here / "sub/legacy/a.py").write_text("old")
    (here / "pyproject.toml").write_text("[tool.quickwins]\nexclude = ['sub/legacy/']\n")
    assert quickwins(here, "check", "sub").returncode == 0
    assert quickwins(here, "check", "sub/legacy/a.py").returncode == 0
    (here / "pyproject.toml").unlink()
    assert quickwins(here, "check", "sub").returncode == 1
    for pattern in ("sub/legacy/", "legacy/a.py", "sub/legacy/*"):
        assert quickwins(here, "check", "sub", "--exclude", pattern).returncode == 0


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[tool.quickwins]\nselect = [", "pyproject.toml:2:"),
        (
            "[tool.quickwins]\nselcet = []",
            "pyproject.toml:2: tool.quickwins.selcet: unknown key; did",
        ),
        (
            "[tool.quickwins.made-up]\nfactor = 0",
            "pyproject.toml:2: tool.quickwins.made-up.factor: must be greater than 0, not 0",
        ),
    ],
)
def test_a_broken_configuration_is_one_line(here: Path, toml: str, message: str) -> None:
    write(here, a="old")
    (here / "pyproject.toml").write_text(toml)
    done = quickwins(here, "apply", ".")
    assert done.returncode == 2 and one_line(done).startswith(message)
    assert (here / "a.py").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dif .", 'no such command "dif"; did you mean "diff"?'),
        ("diff", "diff: Missing argument 'PATH...'."),
        ("diff nowhere", "nowhere: no such file or directory"),
        (
            "diff . --select made-upp",
            '--select: unknown rule or code "made-upp"; did you mean "mad',
        ),
        ("diff . --ignore QW001", '--ignore: "QW001" is about whole files and cannot be chosen'),
        ("diff . --exclude !", '--exclude: "!" is no pattern of a .gitignore'),
        ("diff . --format xml", "diff: Invalid value for '--format': 'xml' is not one of"),
        (
            "diff . --factor -1",
            "diff: Invalid value for '--factor': must be greater than 0, not -1",
        ),
        ("diff . --factor nan", "diff: Invalid value for '--factor': must be a finite number"),
        ("diff . --factor much", "diff: Invalid value for '--factor': 'much' is not a valid float"),
        ("diff . --curve flat", "diff: Invalid value for '--curve': 'flat' is not one of"),
        ("diff . --config nowhere.toml", "nowhere.toml: cannot be read: No such file or directory"),
        (
            "diff . --patch no/where.patch",
            "--patch no/where.patch: cannot be written: No such file",
        ),
        ("diff . --html no/where.html", "--html no/where.html: cannot be written: No such file"),
        ("diff . --faktor 2", "diff: No such option"),
        ("explain QW90", 'explain: unknown rule or code "QW90"; did you mean "QW9'),
    ],
)
def test_wrong_usage_is_one_line(here: Path, arguments: str, message: str) -> None:
    done = quickwins(here, *shlex.split(arguments))
    assert (done.returncode, done.stdout) == (2, b"")
    assert one_line(done).startswith(message)


def test_flags_come_from_the_options_of_the_rules(here: Path) -> None:
    shown = " ".join(quickwins(here, "apply", "--help").stdout.decode().split())
    assert "--factor FLOAT made-up: how much [default: 3.0]" in shown
    assert "--peak FLOAT made-up: the top [default: unset]" in shown
    assert "--made-up-logged / --no-made-up-logged made-up: log it [default: true]" in shown
    assert "--other-rule-logged" in shown and "--curve [cos|linear]" in shown


# Streams that are closed, full, or cannot show a character


@posix
def test_a_reader_that_leaves_early_is_no_failure(here: Path) -> None:
    write(here, **{f"f{n:03}": "old\n" * 500 for n in range(60)})
    for command in ("diff .", "diff . --format json", "check ."):
        line = f"{sys.executable} {FAKE} {command} | head -1"
        done = subprocess.run(
            ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}} >&2"], cwd=here, env=environment(),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        assert done.stderr.splitlines()[-1] == ("1" if command == "check ." else "0")


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_failure(here: Path, closed: str) -> None:
    write(here, a="old\n")
    for command, code in (("diff .", 0), ("check .", 1), ("--help", 0), ("dif", 2)):
        line = f"{sys.executable} {FAKE} {command} {closed}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=here, env=environment(), capture_output=True
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(here: Path) -> None:
    write(here, a="old\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, FAKE, "diff", "."], cwd=here, env=environment(), stdout=full,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == b"quickwins: cannot write the output: No space left on device\n"


def test_a_terminal_without_the_letters_is_no_failure(here: Path) -> None:
    write(here, ü="old\n")
    done = quickwins(here, "check", ".", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (1, b"\\xfc.py:1:1: QW901 old became new\n")


# Ends that nobody planned


def test_a_defect_asks_for_a_report(here: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(FAKE).parent)!r}); import fake_quickwins\n"
        "fake_quickwins.install(); from quickwins_codemod import cli, repository\n"
        "def run(*a, **k): raise KeyError('oops')\n"
        "repository.run = run; cli.main()"
    )
    command = [sys.executable, "-c", program, "diff", "."]
    done = subprocess.run(command, cwd=here, env=environment(), capture_output=True)
    assert done.returncode == 3
    assert one_line(done) == (
        "a defect of quickwins, please report it: KeyError: 'oops' (QUICKWINS_DEBUG=1 shows more)"
    )
    debugging = environment(QUICKWINS_DEBUG="1")
    done = subprocess.run(command, cwd=here, env=debugging, capture_output=True)
    assert done.returncode == 3 and b"Traceback" in done.stderr


def test_a_file_that_breaks_us_does_not_stop_the_others(here: Path) -> None:
    write(here, a="old boom", b="old")
    done = quickwins(here, "apply", ".")
    assert done.returncode == 3 and done.stderr == b""
    assert b"QW005 a defect of quickwins: KeyError: 'boom'\n      a.py:1:1\n" in done.stdout
    assert (here / "b.py").read_text() == "new"


def test_an_interrupt_is_one_line(here: Path) -> None:
    write(here, a="old interrupt", b="old")
    done = quickwins(here, "apply", ".")
    assert (done.returncode, one_line(done), done.stdout) == (130, "interrupted", b"")
    assert (here / "b.py").read_text() == "old"


@posix
def test_an_interrupt_ends_all_processes(here: Path) -> None:
    write(here, **{f"f{n}": "old slow" for n in range(4)})
    process = subprocess.Popen(
        [sys.executable, FAKE, "diff", ".", "--workers", "2"], cwd=here, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 30
    while len(list(here.glob("*.started"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    # Its workers hold the same streams: these end only when the last of them is gone.
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"quickwins: interrupted\n")


# The start


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain"], ["explain", "QW001"], ["diff", "--help"],
                  ["diff", "."], ["check", ".", "--format", "json"], ["apply", "."], ["dif"]],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_rewriting_imports_no_heavy_library(here: Path, arguments: list[str]) -> None:
    write(here, a="print('no training here')\n")
    program = (
        "import sys\n"
        "from quickwins_codemod.cli import invoke\n"
        f"invoke({arguments!r})\n"
        "heavy = {'libcst', 'torch', 'rich', 'pygments', 'numpy', 'wandb', 'multiprocessing',"
        " 'asyncio'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env=environment(), capture_output=True
    )
    assert done.stdout.splitlines()[-1] == b"heavy:", done.stderr


def test_the_module_is_the_command(here: Path) -> None:
    done = quickwins(here, "--version", real=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, b"quickwins,")


# The real rules, on the sample repository

SAMPLE = Path(__file__).parent.parent / "fixtures" / "recsys"
SCRIPTS = {
    f"{folder}/train_with_wandb.py"
    for folder in (
        "neural_collaborative_filtering",
        "sequential_models",
        "two_tower_model",
        "hybrid_recommendation_movie/hybrid_recommendation",
        "hybrid_recommendation_tv/hybrid_recommendation",
        "implicit_feedback/neumf",
        "implicit_feedback/two_tower",
    )
}


@pytest.fixture
def sample(here: Path) -> Path:
    shutil.copytree(SAMPLE, here / "recsys", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "add", "."], cwd=here, check=True)
    return here / "recsys"


def test_the_sample_repository_from_diff_to_check(sample: Path) -> None:
    (sample / "bad.py").write_text("optimizer.step(\n")
    report = json.loads(quickwins(sample, "diff", ".", "--format", "json", real=True).stdout)
    by_status: dict[str, set[str]] = {}
    for file in report["files"]:
        by_status.setdefault(file["status"], set()).add(file["path"])
    loaders = {f"{name}/src/data_loader.py" for name in (
        "neural_collaborative_filtering", "two_tower_model"
    )}  # fmt: skip
    assert by_status["changed"] == SCRIPTS | loaders
    assert by_status["error"] == {"bad.py"}
    assert all(path.startswith("quickwins_runtime/") for path in by_status["added"])
    assert quickwins(sample, "apply", ".", "--exclude", "bad.py", real=True).returncode == 0
    done = quickwins(sample, "check", ".", "--allow-dirty", real=True)
    assert done.returncode == 2, "check writes nothing, so it takes no such flag"
    done = quickwins(sample, "check", ".", real=True)
    assert done.returncode == 3
    assert done.stdout.startswith(b"bad.py:1:") and b" QW001 cannot be parsed: " in done.stdout
    assert quickwins(sample, "check", ".", "--exclude", "bad.py", real=True).returncode == 0


def test_the_patch_of_the_sample_repository_is_what_apply_writes(sample: Path) -> None:
    patch = quickwins(sample, "diff", ".", real=True).stdout
    quickwins(sample, "apply", ".", real=True)
    applied = {path: path.read_bytes() for path in sample.rglob("*.py")}
    subprocess.run(["git", "checkout", "-q", "."], cwd=sample, check=True)
    shutil.rmtree(sample / "quickwins_runtime")
    subprocess.run(["git", "apply", "-"], cwd=sample, input=patch, check=True)
    assert {path: path.read_bytes() for path in sample.rglob("*.py")} == applied


def test_a_rule_is_tuned_by_flag_and_by_configuration(sample: Path) -> None:
    assert b"max_lr_factor=2.0" in quickwins(
        sample, "diff", "two_tower_model", "--max-lr-factor", "2", real=True
    ).stdout  # fmt: skip
    (sample / "pyproject.toml").write_text("[tool.quickwins.onecycle]\nmax-lr-factor = 4\n")
    done = quickwins(sample, "diff", "two_tower_model", real=True)
    assert b"max_lr_factor=4.0" in done.stdout, done.stderr
    done = quickwins(sample, "check", ".", "--ignore", "onecycle,hard-negatives,amp,metrics", real=True)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_say_of_the_sample_what_one_process_says(sample: Path, method: str) -> None:
    program = sample.parent / "run.py"
    program.write_text(
        "import multiprocessing\n"
        "from quickwins_codemod.cli import main\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    main()\n"
    )
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    command = [sys.executable, str(program), "diff", ".", "--format", "json", "--workers"]
    alone, together = (
        subprocess.run([*command, n], cwd=sample, env=environment(), capture_output=True)
        for n in ("1", "2")
    )
    assert together.stderr == b""
    assert together.stdout == alone.stdout
