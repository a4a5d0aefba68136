"""What the steps of the action share: the runner's files and commands, and GitHub's API.

The steps are scripts of the standard library alone, for the Python that they find on the runner;
quickwins itself lives in an environment of its own.
"""

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

#: How long GitHub may take to answer, in seconds.
TIMEOUT = 30


class ApiError(Exception):
    """An answer of GitHub that is none, or none that helps; `code` is 0 where none came."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def work() -> Path:
    """The folder in which the steps leave things for each other, outside the repository."""
    folder = Path(os.environ["RUNNER_TEMP"], "quickwins-action")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment_python() -> Path:
    """The Python of the environment that quickwins is installed in."""
    way = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return work() / "venv" / way


def say(level: str, message: str) -> None:
    """Show a message on the run's page: `notice`, `warning` or `error`."""
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{level} title=quickwins::{escaped}", flush=True)


def fail(message: str) -> NoReturn:
    """End the step, and with it the job."""
    say("error", message)
    sys.exit(1)


def show(text: str) -> None:
    """Print what others wrote, so that nothing in it is taken for a command to the runner."""
    stop = secrets.token_hex(16)
    print(f"::stop-commands::{stop}\n{text.rstrip()}\n::{stop}::", flush=True)


def append(variable: str, text: str) -> None:
    """Append to one of the runner's files, GITHUB_OUTPUT or GITHUB_STEP_SUMMARY."""
    with open(os.environ[variable], "a", encoding="utf-8", newline="\n") as file:
        file.write(text + "\n")


def pull_request() -> int | None:
    """The number of the pull request that this run is about."""
    path = os.environ.get("GITHUB_EVENT_PATH", "")
    event = json.loads(Path(path).read_text(encoding="utf-8")) if os.path.isfile(path) else {}
    found = event.get("pull_request")
    return found["number"] if found else None


def run_page() -> str:
    """The address of this run."""
    site, repository, run = (
        os.environ.get(name, "")
        for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    )
    return f"{site}/{repository}/actions/runs/{run}"


def api(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask GitHub, or raise ApiError. A path without a leading slash counts from the repository."""
    if not path.startswith("/"):
        path = f"/repos/{os.environ['GITHUB_REPOSITORY']}/{path}"
    request = urllib.request.Request(
        os.environ["GITHUB_API_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['QUICKWINS_TOKEN']}",
            "Content-Type": "application/json",
            "User-Agent": "quickwins-codemod",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise ApiError(error.code, f"{method} {path}: {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise ApiError(0, f"{method} {path}: {getattr(error, 'reason', error)}") from None


def pages(path: str) -> list[Any]:
    """All items of a list that GitHub hands out in pages, or ApiError."""
    found: list[Any] = []
    for page in range(1, 101):
        items = api("GET", f"{path}?per_page=100&page={page}")
        found += items
        if len(items) < 100:
            break
    return found
