"""The quick win as a command of libcst's own codemod tool."""

import shutil
import subprocess
import sys
from pathlib import Path

PAIRS = Path(__file__).resolve().parents[1] / "fixtures" / "pairs" / "onecycle"
COMMAND = "quickwins_codemod.transforms.onecycle.OneCycleCommand"


def libcst_tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libcst.tool", "codemod", "-x", "--no-format", COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_rewrites_as_our_own_command_does_in_two_processes(tmp_path: Path) -> None:
    names = ["plain_loop", "plateau", "sequential_lr"]
    for name in names:
        shutil.copy(PAIRS / f"{name}.in.py", tmp_path / f"{name}.py")
    done = libcst_tool(tmp_path, *(f"{name}.py" for name in names), "-j", "2")
    assert done.returncode == 0, done.stderr
    for name in names:
        assert (tmp_path / f"{name}.py").read_text() == (PAIRS / f"{name}.out.py").read_text()
    assert not (tmp_path / "quickwins_runtime").exists()


def test_a_refusal_is_a_warning_and_changes_nothing(tmp_path: Path) -> None:
    text = (
        "import torch\n\n"
        "def run(model, batches):\n"
        "    optimizer = torch.optim.Adam(model.parameters())\n"
        "    while True:\n"
        "        optimizer.zero_grad()\n"
        "        model(next(batches)).backward()\n"
        "        optimizer.step()\n"
    )
    (tmp_path / "endless.py").write_text(text)
    done = libcst_tool(tmp_path, "endless.py")
    assert "QW113" in done.stderr
    assert (tmp_path / "endless.py").read_text() == text


def test_options_are_flags_of_the_command(tmp_path: Path) -> None:
    shutil.copy(PAIRS / "plain_loop.in.py", tmp_path / "plain.py")
    libcst_tool(tmp_path, "--max-lr-factor", "2.5", "plain.py")
    assert "max_lr_factor=2.5" in (tmp_path / "plain.py").read_text()


def test_the_description_says_that_the_runtime_is_not_placed(tmp_path: Path) -> None:
    done = libcst_tool(tmp_path, "--help", "x")
    assert "quickwins_runtime" in done.stdout and "not placed" in " ".join(done.stdout.split())


def test_our_own_start_does_not_load_it() -> None:
    code = (
        "import sys; import quickwins_codemod.transforms.onecycle; "
        "sys.exit('libcst' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
