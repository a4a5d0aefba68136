"""The package as its users get it: a wheel, an sdist and an editable install, none with torch."""

from __future__ import annotations

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
JUNK = (
    ".git", ".venv*", "venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache",
    ".hypothesis", ".quickwins", "wandb",
)  # fmt: skip
SCRIPT = """\
import torch

def train(model, loader, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for epoch in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        scheduler.step()

model = torch.nn.Linear(2, 1)
data = torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1))
train(model, torch.utils.data.DataLoader(data, batch_size=2), 3)
"""
# Says what a run loaded: importing the runtime would import torch, which users may not have there.
LOOK = """\
import importlib.metadata, importlib.util, sys
from quickwins_codemod import __version__, bundle, cli, transforms
code = cli.invoke(["diff", "train.py"])
assert code == 0, code
assert "quickwins_codemod.transforms.onecycle" in sys.modules
assert importlib.metadata.version("quickwins-codemod") == __version__
assert "schedule.py" in bundle.runtime_files()
assert importlib.util.find_spec("torch") is None
loaded = [m for m in sys.modules if m.split(".")[0] in ("transforms", "runtime", "torch")]
loaded += [m for m in sys.modules if m.startswith("quickwins_codemod.runtime")]
assert not loaded, loaded
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building leaves folders behind, and this tree is not ours to litter."""
    copy = tmp_path_factory.mktemp("checkout") / "quickwins-codemod"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*JUNK))
    return copy


@pytest.fixture(scope="session")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(checkout)]
    if _setuptools_is_new_enough():
        command.insert(3, "--no-isolation")
    run(command, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="session")
def environment(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    run([scripts(folder) / "pip", "install", "-q", str(built["wheel"])], cwd=folder)
    return folder


@pytest.fixture(scope="module", params=["wheel", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest, environment: Path, built: dict[str, Path], checkout: Path
) -> Path:
    """The folder of the commands, with the package installed in one of three ways."""
    way = request.param
    what = ["-e", str(checkout)] if way == "editable" else [str(built[way])]
    pip = scripts(environment) / "pip"
    run([pip, "uninstall", "-q", "-y", "quickwins-codemod"], cwd=environment)
    run([pip, "install", "-q", "--no-deps", *what], cwd=environment)
    return scripts(environment)


def scripts(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def run(command: list[object], cwd: Path) -> str:
    """Run a command that must succeed, away from this session's import path."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PRE_COMMIT", "PIP_REQUIRE_VIRTUALENV", "VIRTUAL_ENV")
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={key: value for key, value in os.environ.items() if key not in hidden},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _setuptools_is_new_enough() -> bool:
    try:
        import setuptools
    except ImportError:
        return False
    return int(setuptools.__version__.split(".")[0]) >= 77


# What is in the files


def test_the_wheel_holds_every_module_and_nothing_else(built: dict[str, Path]) -> None:
    moved = {"transforms": "quickwins_codemod/transforms", "runtime": "quickwins_codemod/runtime"}
    expected = {
        f"{moved.get(folder, folder)}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in ("quickwins_codemod", "transforms", "runtime")
        for path in (ROOT / folder).rglob("*.py")
    }
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert names == expected


def test_a_plain_install_asks_for_small_helpers_only(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
        licensed = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    requires = [line.partition(";") for line in metadata.get_all("Requires-Dist", [])]
    plain = {re.split(r"[<>=]", name)[0] for name, _, marker in requires if "extra" not in marker}

    assert plain == {"click", "libcst", "pathspec", "pygments", "rich", "tomli"}
    assert set(metadata.get_all("Provides-Extra")) == {"train", "test", "trial"}
    assert metadata["License-Expression"] == "MIT" and licensed
    assert "Quick start" in metadata.get_payload()


def test_the_sdist_holds_what_is_needed_to_test_it(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    here = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tests", "fixtures", "transforms", "runtime", "quickwins_codemod", "action")
        for path in (ROOT / folder).rglob("*.py")
        if not {"wandb", "__pycache__"} & set(path.parts)
    }
    single = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".pre-commit-hooks.yaml"}
    single.add("action.yml")
    assert here | single | {"fixtures/recsys/README.md", ".ci/run"} <= names
    assert not [name for name in names if name.endswith(".pyc")]


# What is installed


@pytest.mark.network
def test_a_diff_without_torch(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)

    version = run([installed / "quickwins", "--version"], tmp_path)
    diff = run([installed / "quickwins", "diff", "train.py"], tmp_path)
    run([installed / "python", "-c", LOOK], tmp_path)

    assert re.fullmatch(r"quickwins, version \d+\.\d+\.\d+\n", version)
    assert "+    scheduler = OneCycle(" in diff and "+++ b/quickwins_runtime/schedule.py" in diff
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.network
def test_a_diff_from_inside_a_checkout(installed: Path, checkout: Path) -> None:
    # The folders transforms/ and runtime/ lie in the current directory, under other names.
    diff = run([installed / "quickwins", "diff", "fixtures/recsys"], checkout)

    # seven training scripts and two data loaders
    assert diff.count("\n+from quickwins_runtime import ") == 9


@pytest.mark.network
@pytest.mark.parametrize("installed", ["editable"], indirect=True)
def test_modules_run_from_inside_a_checkout(installed: Path, checkout: Path) -> None:
    # The checkout's own quickwins_codemod comes first on the path there, without transforms/ in it.
    python = installed / "python"
    script = "fixtures/recsys/two_tower_model/train_with_wandb.py"
    version = run([python, "-m", "quickwins_codemod", "--version"], checkout)
    run([python, "-m", "quickwins_codemod", "diff", script], checkout)

    assert version.startswith("quickwins, version ")


# Inside the sources


def _imports(path: Path) -> set[str]:
    """Return the absolute names that a module imports, by statement or by a literal's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__", "importorskip", "find_spec")
        ):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return {name for name in found if isinstance(name, str)}


def _sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_module_goes_by_two_names() -> None:
    # Imported as `runtime`, a module would be a second object beside quickwins_codemod.runtime.
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in _sources("quickwins_codemod", "transforms", "runtime", "tests")
        for name in _imports(path)
        if name.split(".")[0] in ("transforms", "runtime")
    }
    assert not wrong


def test_the_runtime_stands_alone_and_nothing_imports_it() -> None:
    ours = {f"{p.name}: {n}" for p in _sources("runtime") for n in _imports(p) if "quickwins" in n}
    users = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in _sources("quickwins_codemod", "transforms")
        for name in _imports(path)
        if name.startswith("quickwins_codemod.runtime.")
    }
    assert not ours and not users
