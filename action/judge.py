"""The last step: whether the job fails, after everything was reported."""

import json
import os

import runner


def main() -> None:
    report = runner.work() / "report.json"
    summary = json.loads(report.read_text(encoding="utf-8"))["summary"]
    if summary["errors"]:
        runner.fail("some files could not be processed; the summary of this run names them")
    if summary["changed"] and os.environ["QUICKWINS_FAIL_ON_CHANGES"] == "true":
        runner.fail("changes are due; the summary of this run shows them")


if __name__ == "__main__":
    main()
