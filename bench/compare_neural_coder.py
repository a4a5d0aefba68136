"""Mixed precision by quickwins and by Neural Coder, side by side on the same training scripts.

usage: python bench/compare_neural_coder.py [--neural-coder PYTHON]

Both rewrite copies of the five sample scripts, and of the tree that QW_TARGET names, if it is set:
quickwins by `apply --select amp`, Neural Coder (neural-compressor 2.6, its feature
`pytorch_mixed_precision_cuda`) by `enable`. PYTHON is an interpreter with neural-compressor 2.6;
without it one is made in a temporary folder, which needs a package index. Where that fails, its
rows are left out.

Each rewritten script is compiled, read, and trained for two epochs on a CPU, quickwins' under
QUICKWINS_AMP=fp16. A script of QW_TARGET needs its data in QW_TARGET_DATA (folders `movies` and
`tv`, each with ratings.csv and movies.csv) and is not run without. What the tables say:

    runs                      the run ends with exit code 0; "as before the rewrite" where the
                              untouched script ends with the same error
    forward under autocast    every training forward stands in exactly one autocast region, and none
                              does in the branch that a script keeps for training without a scaler
    backward scaled           no backward() of a forward under autocast is unscaled, and none stands
                              under autocast itself
    clip unscaled             no gradients are clipped, and no norm of them is taken, while scaled

The first is seen in the run. The others are read from the source, since the regions of both tools'
scripts that ask for CUDA are disabled on a CPU; where a run came by them it counts the forwards and
backward calls that were (`run: 42/42`), and contradicts the source if they are fewer.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from gpu_amp import SAMPLE, SIZES, apply, scripts

FEATURE = "pytorch_mixed_precision_cuda"
PEER = "neural-compressor==2.6"
ENABLE = """\
import sys
from neural_coder import enable
for path in sys.argv[1:]:
    enable(code=path, features=["%s"], overwrite=True, logging_level="error")
""" % FEATURE
SEEN_SCALER = re.compile(r"\bscaler\b")
CLIP = re.compile(r"clip_grad_(norm|value)_$")
#: Arguments of each target script beside data, epochs and tracking.
TARGET_ARGUMENTS = {
    "neural_collaborative_filtering": "--min-ratings-user 1 --min-ratings-item 1",
    "two_tower_model": "--min-interactions 1 --embedding-dim 16 --hidden-dim 16 --num-heads 2"
    " --num-layers 1 --gradient-clipping",
    "sequential_models": "--embedding-dim 16",
    "hybrid_recommendation_movie": "--embedding-dim 16 --gradient-clipping",
    "hybrid_recommendation_tv": "--embedding-dim 16 --gradient-clipping",
}
SAMPLE_ARGUMENTS = {
    "neural_collaborative_filtering": "--amp",
    "two_tower_model": "--gradient-clipping",
    "hybrid_recommendation_movie": "--gradient-clipping",
    "hybrid_recommendation_tv": "--gradient-clipping",
}
HEAD = [
    "script", "tool", "compiles", "runs", "forward under autocast", "backward scaled",
    "clip unscaled",
]  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--probe"]:
        probe(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--neural-coder", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = options.neural_coder or installed(folder)
        if peer is None:
            print(f"{PEER} could not be installed here: its rows are left out\n")
        trees = {"sample": sample(folder)}
        if os.environ.get("QW_TARGET"):
            trees["target"] = target(folder)
        for title, tree in trees.items():
            print(f"The {title} scripts:\n")
            print("\n".join(table(tree, folder / f"{title}-tools", peer, title)), end="\n\n")


# -- the two tools --------------------------------------------------------------------------------


def installed(folder: Path) -> str | None:
    """An interpreter with Neural Coder, made here."""
    home = folder / "peer"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", PEER]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode else str(python)


def rewritten(tree: Path, copy: Path, tool: str, peer: str | None) -> Path:
    shutil.copytree(tree, copy)
    if tool == "quickwins":
        apply(copy, accepted=(0, 3))  # 3: another file of the tree does not parse
        return copy
    assert peer is not None
    workspace = copy.parent / "workspace"
    workspace.mkdir(exist_ok=True)
    paths = [str(copy / name) for name in scripts(copy)]
    subprocess.run(
        [peer, "-c", ENABLE, *paths], cwd=workspace, check=True, capture_output=True, text=True
    )
    return copy


def sample(folder: Path) -> Path:
    tree = folder / "sample"
    unwanted = shutil.ignore_patterns("__pycache__", "wandb", "models", "data")
    shutil.copytree(SAMPLE, tree, ignore=unwanted)
    made = [sys.executable, "make_data.py", "data", *SIZES["cpu"]["data"]]
    subprocess.run(made, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    return tree


def target(folder: Path) -> Path:
    """The folders of the five scripts in a copy of the tree that QW_TARGET names."""
    tree = folder / "target"
    unwanted = shutil.ignore_patterns(".git", "__pycache__", "wandb", "*.pt", "*.pth", "*.csv")
    shutil.copytree(os.environ["QW_TARGET"], tree, ignore=unwanted)
    return tree


def table(tree: Path, folder: Path, peer: str | None, kind: str) -> list[str]:
    tools = ["quickwins", "Neural Coder"][: 1 if peer is None else 2]
    copies = {tool: rewritten(tree, folder / tool.split()[0], tool, peer) for tool in tools}
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name in scripts(tree):
        short = name.split("/")[0]
        if kind == "target" and short not in TARGET_ARGUMENTS:
            continue
        for tool, copy in copies.items():
            cells = judged(copy, name, kind)
            if cells[1].startswith("no: ") and cells[0] == "yes":
                alike = cells[1] == run(tree, name, kind)[0]
                error = cells[1].partition(": ")[2].partition(":")[0]
                cells[1] = f"no: {error}{', as before the rewrite' if alike else ''}"
            lines.append(f"| {' | '.join([f'`{short}`', tool, *cells])} |")
    return lines


# -- one script -----------------------------------------------------------------------------------


def judged(tree: Path, name: str, kind: str) -> list[str]:
    text = (tree / name).read_text(encoding="utf-8")
    try:
        module = ast.parse(text)
        compile(text, name, "exec")
    except SyntaxError as error:
        return [f"no: {error.msg}", "no", "-", "-", "-"]
    read = Reading(module)
    ran, seen = run(tree, name, kind)
    forward, backward, clip = read.forward(), read.backward(), read.clip()
    if seen.get("forward") and seen.get("scaled"):
        once, count = seen["once"], seen["forward"]
        forward = confirmed(forward, once, count)
        backward = confirmed(backward, seen["scaled"], seen["backward"])
        if seen["clip"]:
            clip = confirmed(clip, seen["clip"] - seen["clip_scaled"], seen["clip"])
    return ["yes", ran, forward, backward, clip]


def confirmed(read: str, good: int, all_of_them: int) -> str:
    """What was read from the source, unless the run contradicts it."""
    return f"{read if good == all_of_them else 'no'}, run: {good}/{all_of_them}"


class Reading:
    """What the source of one script says of its training steps.

    Models are names whose parameters(), train() or eval() are asked for. A training forward is a
    call of one in a function that calls backward(), outside of no_grad().
    """

    def __init__(self, module: ast.Module) -> None:
        self.parents = {c: p for p in ast.walk(module) for c in ast.iter_child_nodes(p)}
        calls = [n for n in ast.walk(module) if isinstance(n, ast.Call)]
        self.calls = sorted(calls, key=lambda n: (n.lineno, n.col_offset))
        models = {
            ast.unparse(c.func.value) for c in calls
            if isinstance(c.func, ast.Attribute) and c.func.attr in ("parameters", "train", "eval")
        }  # fmt: skip
        self.backwards = [c for c in self.calls if self._is_method(c, "backward")]
        homes = {self._function(b) for b in self.backwards}
        self.forwards = [
            c for c in self.calls
            if ast.unparse(c.func) in models and self._function(c) in homes
            and not self._regions(c, ("no_grad", "inference_mode"))
        ]  # fmt: skip

    def forward(self) -> str:
        wrong = []
        for call in self.forwards:
            depth = len(self._regions(call, ("autocast",)))
            if depth != (0 if self._without_scaler(call) else 1):
                aside = self._without_scaler(call)
                wrong.append("in a branch without scaler" if aside else f"{depth} x")
        return self._verdict(wrong, self.forwards)

    def backward(self) -> str:
        """Unscaled is right only where the script trains without scaler, in full precision."""
        half = any(
            self._regions(f, ("autocast",)) for f in self.forwards if self._without_scaler(f)
        )
        wrong = [
            "unscaled" for b in self.backwards
            if not self._is_scaled(b) and (half or not self._without_scaler(b))
        ]  # fmt: skip
        wrong += ["under autocast" for b in self.backwards if self._regions(b, ("autocast",))]
        return self._verdict(wrong, self.backwards)

    def clip(self) -> str:
        """In the order of the source; the branch without scaler has nothing that is scaled."""
        scaled, any_scaled, wrong, seen = False, False, [], []
        for call in self.calls:
            if self._without_scaler(call):
                continue
            if self._is_method(call, "backward") and self._is_scaled(call):
                scaled = any_scaled = True
            elif self._is_method(call, "unscale_") or self._is_scaler_step(call):
                scaled = False
            elif CLIP.search(ast.unparse(call.func)):
                seen.append(call)
                if scaled:
                    wrong.append("while scaled")
        if not seen or not any_scaled:
            return "no clip" if not seen else "nothing scaled"
        return self._verdict(wrong, seen)

    def _verdict(self, wrong: list[str], looked_at: list[ast.Call]) -> str:
        if not looked_at:
            return "none found"
        words = ", ".join(dict.fromkeys(wrong))
        return f"no: {len(wrong)} of {len(looked_at)}, {words}" if wrong else "yes"

    def _ancestors(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Each ancestor, with its child on the way."""
        while node in self.parents:
            parent = self.parents[node]
            yield parent, node
            node = parent

    def _function(self, node: ast.AST) -> ast.AST | None:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return next((a for a, _ in self._ancestors(node) if isinstance(a, kinds)), None)

    def _regions(self, node: ast.AST, names: tuple[str, ...]) -> list[ast.With]:
        return [
            a for a, child in self._ancestors(node)
            if isinstance(a, ast.With) and child in a.body and any(
                isinstance(i.context_expr, ast.Call)
                and ast.unparse(i.context_expr.func).rpartition(".")[2] in names
                for i in a.items
            )
        ]  # fmt: skip

    def _without_scaler(self, node: ast.AST) -> bool:
        return any(
            isinstance(a, ast.If) and child in a.orelse and SEEN_SCALER.search(ast.unparse(a.test))
            for a, child in self._ancestors(node)
        )

    def _is_method(self, call: ast.Call, name: str) -> bool:
        return isinstance(call.func, ast.Attribute) and call.func.attr == name

    def _is_scaled(self, backward: ast.Call) -> bool:
        receiver = backward.func.value  # type: ignore[attr-defined]
        return isinstance(receiver, ast.Call) and self._is_method(receiver, "scale")

    def _is_scaler_step(self, call: ast.Call) -> bool:
        return self._is_method(call, "step") and bool(SEEN_SCALER.search(ast.unparse(call.func)))


# -- the run --------------------------------------------------------------------------------------


def run(tree: Path, name: str, kind: str) -> tuple[str, dict[str, int]]:
    """Train a script for two epochs on a CPU: whether it ends well, and what was seen."""
    short = name.split("/")[0]
    folder = (tree / name).parent
    if kind == "sample":
        data, extra = tree / "data", SAMPLE_ARGUMENTS.get(short, "") + " --device cpu"
    elif os.environ.get("QW_TARGET_DATA"):
        tv = short in ("sequential_models", "hybrid_recommendation_tv")
        data = Path(os.environ["QW_TARGET_DATA"]).resolve() / ("tv" if tv else "movies")
        extra = TARGET_ARGUMENTS[short]
    else:
        return "not run", {}
    record = folder / "probe.json"
    arguments = ["--ratings-path", f"{data}/ratings.csv", "--movies-path", f"{data}/movies.csv"]
    arguments += ["--epochs", "2", "--wandb-offline", *extra.split()]
    done = subprocess.run(
        [sys.executable, __file__, "--probe", str(record), str(tree / name), *arguments],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "WANDB_SILENT": "true", "QUICKWINS_AMP": "fp16"},
    )  # fmt: skip
    seen = json.loads(record.read_text()) if record.is_file() else {}
    if done.returncode == 0:
        return "yes", seen
    return f"no: {seen.get('error', 'exit code %d' % done.returncode)}", seen


def probe(record: Path, command: list[str]) -> None:
    """Run a script, and count forwards in one autocast region, scaled backward calls, and clips."""
    import torch

    count = dict.fromkeys(("forward", "once", "backward", "scaled", "clip", "clip_scaled"), 0)
    depth = {"region": 0, "module": 0}
    scaled: set[int] = set()  # enabled scalers whose gradients are scaled now
    results: set[int] = set()

    def around(owner, name, before):  # type: ignore[no-untyped-def]
        original = getattr(owner, name)

        def called(*args, **kwargs):  # type: ignore[no-untyped-def]
            before(*args)
            return original(*args, **kwargs)

        setattr(owner, name, called)

    def forward(module, _):  # type: ignore[no-untyped-def]
        if not depth["module"] and module.training and torch.is_grad_enabled():
            if not type(module).__name__.endswith("Loss"):
                count["forward"] += 1
                count["once"] += depth["region"] == 1
        depth["module"] += 1

    def after_forward(*_):  # type: ignore[no-untyped-def]
        depth["module"] = max(0, depth["module"] - 1)

    def clip(*_):  # type: ignore[no-untyped-def]
        count["clip"] += 1
        count["clip_scaled"] += bool(scaled)

    def backward(tensor, *_):  # type: ignore[no-untyped-def]
        count["backward"] += 1
        count["scaled"] += id(tensor) in results

    scale = torch.amp.GradScaler.scale

    def noting_scale(scaler, outputs):  # type: ignore[no-untyped-def]
        result = scale(scaler, outputs)
        if scaler.is_enabled():
            scaled.add(id(scaler))
            results.clear()
            results.add(id(result))
        return result

    torch.amp.GradScaler.scale = noting_scale
    for name in ("unscale_", "step"):
        around(torch.amp.GradScaler, name, lambda scaler, *_: scaled.discard(id(scaler)))
    around(torch.autocast, "__enter__", lambda *_: depth.update(region=depth["region"] + 1))
    around(torch.autocast, "__exit__", lambda *_: depth.update(region=depth["region"] - 1))
    around(torch.Tensor, "backward", backward)
    around(torch.nn.utils, "clip_grad_norm_", clip)
    around(torch.nn.utils, "clip_grad_value_", clip)
    torch.nn.modules.module.register_module_forward_pre_hook(forward)
    torch.nn.modules.module.register_module_forward_hook(after_forward, always_call=True)
    offline()
    sys.argv = command
    sys.path[0] = str(Path(command[0]).parent)
    try:
        runpy.run_path(command[0], run_name="__main__")
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            said = f"{type(error).__name__}: {error}"
            record.write_text(json.dumps({**count, "error": said}), encoding="utf-8")
            raise
    record.write_text(json.dumps(count), encoding="utf-8")


def offline() -> None:
    """Start every wandb run offline, also where a script asks for the server before it reads its
    arguments."""
    try:
        import wandb
    except ImportError:
        return
    start = wandb.init
    wandb.init = lambda *args, **named: start(*args, **{**named, "mode": "offline"})


if __name__ == "__main__":
    main()
