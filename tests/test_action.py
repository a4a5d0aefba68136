"""The action for GitHub: its steps run here, on a made repository and an imitation of GitHub."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from git_helpers import CANDIDATE, OTHER

yaml = pytest.importorskip("yaml")
pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]


def script(name: str) -> ModuleType:
    """One of the action's scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "action" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GitHub:
    """The few addresses of GitHub's API that the action asks, on a port of this machine.

    files: what the pull request changes; refuses: the status that writing is answered with.
    """

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.files: list[dict[str, str]] = []
        self.refuses: int | None = None
        self.login: str | None = None
        self.asked: list[str] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path == "/user":
            return (200, {"login": self.login}) if self.login else (403, {})
        path, _, query = path.removeprefix("/repos/films/trainer/").partition("?")
        page = int(dict(re.findall(r"(\w+)=(\d+)", query)).get("page", 1))
        window = slice(100 * page - 100, 100 * page)
        if method == "GET":
            return 200, (self.files if path == "pulls/7/files" else self.comments)[window]
        if self.refuses:
            return self.refuses, {}
        if method == "POST" and path == "issues/7/comments":
            author = {"login": self.login, "type": "User"} if self.login else self.bot
            self.comments.append({"id": 100 + len(self.comments), "user": author, **body})
            return 201, self.comments[-1]
        number = re.fullmatch(r"issues/comments/(\d+)", path)
        assert method == "PATCH" and number, f"{method} {path}"
        (found,) = [c for c in self.comments if c["id"] == int(number[1])]
        found.update(body)
        return 200, found

    bot = {"login": "github-actions[bot]", "type": "Bot"}

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                assert self.headers["Authorization"] == "Bearer secret-token"
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                code, answer = github.answer(self.command, self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = do

            def log_message(self, *words: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


class Runner:
    """Runs the steps of the action as the runner does, as far as they need it.

    used: what the steps of other actions were given, by their name.
    """

    def __init__(self, folder: Path, api: str, installs: bool) -> None:
        self.folder, self.api, self.installs = folder, api, installs
        self.repository = folder / "repository"
        self.temp = folder / "temp"
        for path in (self.repository, self.temp):
            path.mkdir()
        subprocess.run(["git", "init", "-q", str(self.repository)], check=True)
        (folder / "pull_request.json").write_text('{"pull_request": {"number": 7}}')
        self.used: dict[str, dict[str, str]] = {}
        self.log = self.summary = ""

    def add(self, name: str, text: str) -> None:
        path = self.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, event: str = "pull_request", **inputs: str) -> tuple[bool, dict[str, str]]:
        """Run all steps; tell whether the job went well, and the action's outputs."""
        given = {name: about.get("default", "") for name, about in ACTION["inputs"].items()}
        unknown = {name.replace("_", "-") for name in inputs} - set(given)
        assert not unknown, unknown
        given.update({name.replace("_", "-"): value for name, value in inputs.items()})
        github = {"token": "secret-token", "event_name": event}
        given = {name: self._fill(value, {"github": github}) for name, value in given.items()}
        self.used, self.log, self.summary = {}, "", ""
        values: dict[str, Any] = {"inputs": given, "github": github, "steps": {}}
        well = True
        for step in STEPS:
            wanted = self._fill(step.get("if", "true"), values) in ("true", "True")
            if not (well and wanted):
                values["steps"][step.get("id")] = {"outputs": {}}
                continue
            done, outputs = self._step(step, values, event)
            well = well and (done or step.get("continue-on-error", False))
            values["steps"][step.get("id")] = {"outputs": outputs}
        outputs = {n: self._fill(o["value"], values) for n, o in ACTION["outputs"].items()}
        return well, outputs

    def _step(self, step: dict[str, Any], values: Any, event: str) -> tuple[bool, dict[str, str]]:
        if "uses" in step:
            name = step["uses"].partition("@")[0]
            self.used[name] = {k: self._fill(v, values) for k, v in step["with"].items()}
            return True, {"python-path": sys.executable} if "setup-python" in name else {}
        if step["name"] == "Install quickwins" and not self.installs:
            self._environment()
            return True, {}
        for name in ("output", "summary"):
            (self.folder / name).write_text("")
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "INPUT_"))},
            "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_API_URL": self.api,
            "RUNNER_TEMP": str(self.temp), "GITHUB_EVENT_PATH": str(self.folder / f"{event}.json"),
            "GITHUB_OUTPUT": str(self.folder / "output"), "GITHUB_REPOSITORY": "films/trainer",
            "GITHUB_RUN_ID": "42", "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            **{name: self._fill(value, values) for name, value in step["env"].items()},
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]], cwd=self.repository, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        self.log += done.stdout
        self.summary += (self.folder / "summary").read_text()
        lines = (self.folder / "output").read_text().splitlines()
        return done.returncode == 0, dict(line.split("=", 1) for line in lines)

    def _environment(self) -> None:
        """What the step that installs leaves, made from what this test runs with."""
        venv = self.temp / "quickwins-action" / "venv"
        if venv.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        (packages,) = [*venv.glob("lib/python*/site-packages"), *venv.glob("Lib/site-packages")]
        ours = [*site.getsitepackages(), str(ROOT)]
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in ours)
        (packages / "quickwins.pth").write_text(lines)

    def _fill(self, text: Any, values: Any) -> str:
        """Put values in the place of `${{ … }}`."""

        def value(match: re.Match[str]) -> str:
            words = match[1].strip().replace("&&", " and ").replace("||", " or ")
            found = re.sub(r"[a-z]+(?:\.[\w-]+)+", named, words)
            return str(eval(found, {"__builtins__": {}}))

        def named(match: re.Match[str]) -> str:
            return repr(self._look_up(match[0], values))

        return re.sub(r"\$\{\{(.*?)\}\}", value, str(text))

    def _look_up(self, name: str, values: Any) -> str:
        for word in name.split("."):
            values = values.get(word, "") if values else ""
        return values


@pytest.fixture
def github() -> GitHub:
    return GitHub()


@pytest.fixture
def runner(github: GitHub, tmp_path: Path) -> Iterator[Runner]:
    with github.serving() as api:
        yield Runner(tmp_path, api, installs=False)


# The file


def test_it_is_an_action_as_github_defines_one(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-actions", str(ROOT / "action.yml")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    workflow = tmp_path / "quickwins.yml"
    workflow.write_text(workflow_of_the_readme())
    done = subprocess.run(
        [*command, "vendor.github-workflows", str(workflow)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def workflow_of_the_readme() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (workflow,) = re.findall(r"^```yaml\n(name: quickwins\n.*?)^```$", readme, re.M | re.S)
    return workflow


def test_the_example_in_the_readme_gives_what_the_action_takes() -> None:
    workflow = yaml.safe_load(workflow_of_the_readme())
    assert workflow[True] == {"pull_request": None}, "`on`, and not pull_request_target"
    (job,) = workflow["jobs"].values()
    (step,) = [s for s in job["steps"] if "quickwins-codemod@" in s["uses"]]
    assert set(step.get("with", {})) <= set(ACTION["inputs"])
    assert job["permissions"] == {
        "contents": "read", "pull-requests": "write", "security-events": "write",
    }  # fmt: skip


def test_no_input_is_written_into_a_shell_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 4 and not [text for text in scripts if "${{" in text]
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"(?:actions|github)/[\w/-]+@v\d+", step["uses"]), "a fixed major"


def test_each_value_that_a_script_reads_is_given_to_its_step() -> None:
    for step in STEPS:
        if "run" not in step:
            continue
        (name,) = re.findall(r"action/(\w+)\.py", step["run"])
        text = (ROOT / "action" / f"{name}.py").read_text()
        read = set(re.findall(r"QUICKWINS_[A-Z_]+", text)) - {"QUICKWINS_"}
        if name == "look":
            read |= {"QUICKWINS_SELECT", "QUICKWINS_IGNORE", "QUICKWINS_CONFIG", "QUICKWINS_TOKEN"}
        if name == "post":
            read.add("QUICKWINS_TOKEN")  # runner.py reads it for both
        assert read | {"QUICKWINS_PYTHON"} == set(step["env"]), name


# From push to push


def test_one_comment_that_later_runs_change_in_place(runner: Runner, github: GitHub) -> None:
    eve = {"type": "User", "login": "eve"}
    github.comments = [  # one page of GitHub's, all but one
        {"id": n, "body": "<!-- quickwins-codemod --> copied", "user": eve} for n in range(99)
    ]
    runner.add("jobs/train.py", CANDIDATE)
    runner.add("tool.py", OTHER)
    well, outputs = runner.run()

    assert well and outputs["changes"] == "1", runner.log
    first = github.comments[99]["body"]
    assert first.startswith("<!-- quickwins-codemod -->\n### quickwins: 1 file to change\n")
    assert "jobs/train.py:4:17: QW102 " in first and "tool.py" not in first
    assert "\n+    scheduler = OneCycle(" in first and "a/quickwins_runtime/" not in first
    assert "https://github.com/films/trainer/actions/runs/42" in first
    assert runner.summary.strip() == first.strip()

    github.comments.append({"id": 500, "body": "thanks", "user": {"type": "User", "login": "ann"}})
    runner.add("train.py", CANDIDATE)
    well, outputs = runner.run()
    assert well and outputs["changes"] == "2" and len(github.comments) == 101
    assert "2 files to change" in github.comments[99]["body"]

    github.asked.clear()
    runner.run()
    assert not [line for line in github.asked if not line.startswith("GET")], "nothing is new"

    runner.add("train.py", OTHER)
    runner.add("jobs/train.py", OTHER)
    well, outputs = runner.run()
    assert well and outputs["changes"] == "0" and len(github.comments) == 101
    assert github.comments[99]["body"].startswith(
        "<!-- quickwins-codemod -->\n### quickwins: nothing to change\n"
    )
    assert all("copied" in comment["body"] for comment in github.comments[:99])


def test_no_comment_where_there_was_nothing_to_say(runner: Runner, github: GitHub) -> None:
    runner.add("tool.py", OTHER)
    well, outputs = runner.run()
    assert well and github.comments == [] and outputs["patch"] == ""
    assert "nothing to change" in runner.summary
    assert "actions/upload-artifact" not in runner.used


def test_the_comment_of_a_person_s_token_is_found_again(runner: Runner, github: GitHub) -> None:
    github.login = "maintainer"
    runner.add("train.py", CANDIDATE)
    runner.run()
    runner.add("train.py", OTHER)
    runner.run()
    assert len(github.comments) == 1 and "nothing to change" in github.comments[0]["body"]


@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_fork_may_not_write_and_nothing_fails(code: int, runner: Runner, github: GitHub) -> None:
    github.refuses = code
    runner.add("train.py", CANDIDATE)
    well, _ = runner.run()
    assert well and github.comments == []
    (said,) = re.findall(r"^::notice title=quickwins::(.*)$", runner.log, re.M)
    assert "summary" in said and ("forks" in said) is (code != 500)
    assert "+    scheduler = OneCycle(" in runner.summary and "secret-token" not in runner.log


def test_a_github_that_does_not_answer(runner: Runner) -> None:
    runner.api = "http://127.0.0.1:9"
    runner.add("train.py", CANDIDATE)
    well, _ = runner.run(changed_only="true")
    assert well and "no comment could be written" in runner.log and "Traceback" not in runner.log
    assert "::warning title=quickwins::which files" in runner.log


# What goes where


def test_the_reports_and_the_patch(runner: Runner) -> None:
    runner.add("train.py", CANDIDATE)
    _, outputs = runner.run()
    report = json.loads(Path(outputs["sarif"]).read_text())
    (result, *_) = report["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "train.py"
    assert runner.used["github/codeql-action/upload-sarif"]["sarif_file"] == outputs["sarif"]
    assert runner.used["actions/upload-artifact"]["path"] == outputs["patch"]
    done = subprocess.run(["git", "apply", outputs["patch"]], cwd=runner.repository)
    assert done.returncode == 0
    assert (runner.repository / "quickwins_runtime" / "schedule.py").is_file()
    well, outputs = runner.run()
    assert well and outputs["changes"] == "0"


def test_inputs_that_leave_something_out(runner: Runner, github: GitHub) -> None:
    runner.add("train.py", CANDIDATE)
    runner.run(upload_sarif="false", comment="false")
    assert "github/codeql-action/upload-sarif" not in runner.used and github.asked == []
    runner.run("push")
    assert "github/codeql-action/upload-sarif" in runner.used and github.asked == []
    _, outputs = runner.run(ignore="onecycle,amp,metrics,hard-negatives")
    assert outputs["changes"] == "0"
    _, outputs = runner.run(select="amp")
    assert outputs["changes"] == "0"


def test_paths_with_spaces_one_a_line(runner: Runner, github: GitHub) -> None:
    for name in ("my jobs/train.py", "-odd/train.py", "other/train.py"):
        runner.add(name, CANDIDATE)
    _, outputs = runner.run(paths="my jobs\n-odd\n")
    assert outputs["changes"] == "2"
    assert "other/train.py" not in github.comments[0]["body"]
    _, outputs = runner.run(paths="my jobs")
    assert "my jobs/train.py:4:17" in github.comments[0]["body"], "from the top of the repository"


def test_only_what_the_pull_request_changes(runner: Runner, github: GitHub) -> None:
    for name in ("new.py", "old.py", "jobs/new.py"):
        runner.add(name, CANDIDATE)
    names = [f"docs/{n}.md" for n in range(120)] + ["new.py", "gone.py", "jobs/new.py"]
    github.files = [{"filename": name} for name in names]
    _, outputs = runner.run(changed_only="true")
    assert outputs["changes"] == "2" and "old.py" not in github.comments[0]["body"]
    _, outputs = runner.run(changed_only="true", paths="jobs")
    assert outputs["changes"] == "1"
    github.files = [{"filename": "notes.md"}]
    well, outputs = runner.run(changed_only="true")
    assert well and outputs == {"changes": "0", "sarif": "", "patch": ""}
    assert "nothing to change" in github.comments[0]["body"]
    _, outputs = runner.run("push", changed_only="true")
    assert outputs["changes"] == "3", "outside a pull request all count"


# How the job ends


def test_it_fails_where_it_is_asked_to(runner: Runner, github: GitHub) -> None:
    runner.add("train.py", CANDIDATE)
    assert runner.run(fail_on_changes="true")[0] is False
    assert "::error title=quickwins::changes are due" in runner.log and len(github.comments) == 1
    runner.add("train.py", OTHER)
    assert runner.run(fail_on_changes="true")[0] is True


def test_a_file_that_cannot_be_processed_fails_after_all_is_reported(
    runner: Runner, github: GitHub
) -> None:
    runner.add("train.py", CANDIDATE)
    runner.add("broken.py", "def (: optimizer.step(\n")
    well, outputs = runner.run()
    assert not well and outputs["changes"] == "1"
    body = github.comments[0]["body"]
    assert "1 file could not be processed" in body and "broken.py:1:" in body


@pytest.mark.parametrize("inputs", [{"select": "ampp"}, {"paths": "no-such-folder"}])
def test_an_input_that_cannot_be_used(inputs: dict[str, str], runner: Runner) -> None:
    runner.add("train.py", CANDIDATE)
    well, _ = runner.run(**inputs)
    assert not well and "::error title=quickwins::" in runner.log and "Traceback" not in runner.log


def test_nothing_that_quickwins_says_is_a_command_to_the_runner(runner: Runner) -> None:
    well, _ = runner.run(paths="x\n::error::made up")
    assert not well
    stop = re.search(r"^::stop-commands::(\w{32})$", runner.log, re.M)
    assert stop
    assert runner.log.index(f"::{stop[1]}::", stop.end()) > runner.log.index("no such file")


@pytest.mark.network
def test_it_installs_itself(github: GitHub, tmp_path: Path) -> None:
    with github.serving() as api:
        runner = Runner(tmp_path, api, installs=True)
        # What is in the repository under review must not run while pip does.
        runner.add("pip.py", "raise SystemExit('it ran')\n")
        runner.add("quickwins_codemod/__init__.py", "raise SystemExit('it ran')\n")
        runner.add("train.py", CANDIDATE)
        checkout = tmp_path / "action"
        for name in ("quickwins_codemod", "transforms", "runtime"):
            shutil.copytree(ROOT / name, checkout / name)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, checkout / name)
        well, outputs = runner.run(version=str(checkout))
    assert well and outputs["changes"] == "1", runner.log
    assert not runner.run(version="--index-url=https://example.org")[0]


# The text of the comment


def report(*files: tuple[str, str, list[str]]) -> dict[str, Any]:
    return {
        "summary": {},
        "files": [
            {
                "path": path, "status": status,
                "verdicts": [
                    {"line": n, "column": 1, "code": "QW101", "message": text,
                     "status": {"changed": "applied", "error": "refused"}.get(status, status)}
                    for n, text in enumerate(messages, 1)
                ],
            }
            for path, status, messages in files
        ],
    }  # fmt: skip


def test_code_cannot_end_its_block() -> None:
    comment = script("comment")
    text = '+note = """\n+```\n+</details> @everyone <img src=x>\n+~~~~\n+`````\n+"""'
    patch = f"diff --git a/a.py b/a.py\n{text}\n".encode()
    body = comment.render(report(("a.py", "changed", ["`x` ``` becomes"])), patch, "URL")
    fences = re.findall(r"^(`{3,})(\w*)$", body, re.M)
    assert fences == [("````", "text"), ("````", ""), ("``````", "diff"), ("``````", "")]
    inside = body.split("``````diff\n")[1].split("\n``````\n")[0]
    assert text in inside
    assert "@everyone" not in body.replace(inside, "")


def test_a_file_name_or_message_stays_on_its_line() -> None:
    comment = script("comment")
    body = comment.render(report(("a\n```\n# big.py", "changed", ["one\ntwo"])), b"", "URL")
    assert "\n# big.py" not in body and "a ``` # big.py:1:1: QW101 one two" in body


@pytest.mark.parametrize("letter", ["x", "ü", "𝄞"])
def test_a_long_diff_is_cut_at_a_line_within_the_limit(letter: str) -> None:
    comment = script("comment")
    lines = [f"+{number:06} {letter * 50}" for number in range(5000)]
    patch = "\n".join(["diff --git a/a.py b/a.py", *lines, ""]).encode()
    body = comment.render(report(("a.py", "changed", ["m"])), patch, "URL")
    assert 60_000 < len(body.encode()) <= 65_000
    shown = body.split("```diff\n")[1].split("\n```\n")[0].split("\n")
    assert shown[1:] == lines[: len(shown) - 1]
    assert body.rstrip().endswith("the artifact of [this run](URL) is whole.")


def test_too_many_files_to_list() -> None:
    comment = script("comment")
    files = [(f"{'deep/' * 20}{number}.py", "changed", ["m"]) for number in range(3000)]
    body = comment.render(report(*files), b"diff --git a/a.py b/a.py\n+x\n", "URL")
    assert len(body.encode()) <= 65_000 and "3,000 files to change" in body and "+x" in body


def test_long_lists_are_cut() -> None:
    comment = script("comment")
    files = [(f"{number}.py", "warning", ["look"]) for number in range(40)]
    body = comment.render(report(*files), b"", "URL")
    assert "to look at (40)" in body and "and 30 more" in body and "10.py" not in body
