"""The step that puts the text into the pull request: one comment, which later runs change in place.

Where the token may not write, as on a pull request from a fork, nothing fails: the job's summary
has the text already.
"""

import json
from typing import Any

import comment
import runner


def main() -> None:
    number = runner.pull_request()
    if number is None:
        return
    body = (runner.work() / "comment.md").read_text(encoding="utf-8")
    report = json.loads((runner.work() / "report.json").read_text(encoding="utf-8"))
    try:
        _post(number, body, is_due=bool(report["summary"]["changed"]))
    except runner.ApiError as error:
        if error.code in (401, 403, 404):
            said = "the token may not comment here (`pull-requests: write`, never given to forks)"
        else:
            said = f"no comment could be written: {error}"
        runner.say("notice", f"{said}; the summary of this run has the diff")


def _post(number: int, body: str, is_due: bool) -> None:
    """Change the comment of an earlier run, or write one where a change is due."""
    login = _login()
    comments = runner.pages(f"issues/{number}/comments")
    earlier = [found for found in comments if _is_ours(found, login)]
    if earlier:
        if earlier[0]["body"].strip() != body.strip():
            runner.api("PATCH", f"issues/comments/{earlier[0]['id']}", {"body": body})
    elif is_due:
        runner.api("POST", f"issues/{number}/comments", {"body": body})


def _login() -> str | None:
    """Whose token it is: a person's, None for that of a workflow or an app, which may not ask."""
    try:
        return str(runner.api("GET", "/user")["login"])
    except runner.ApiError:
        return None


def _is_ours(found: dict[str, Any], login: str | None) -> bool:
    """Tell whether an earlier run wrote it; our marker alone does not tell, anybody can copy it."""
    author = found.get("user") or {}
    is_author = author.get("type") == "Bot" if login is None else author.get("login") == login
    return is_author and (found.get("body") or "").startswith(comment.MARKER)


if __name__ == "__main__":
    main()
