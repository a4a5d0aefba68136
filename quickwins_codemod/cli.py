"""The command line: words in, words out, no decisions.

Nothing here imports libcst, torch or rich; what a command needs is imported when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quickwins_codemod import __version__, configuration, flags
from quickwins_codemod.report import terminal
from quickwins_codemod.settings import ConfigError, Settings, suggest
from quickwins_codemod.transform import Transform, all_transforms

if TYPE_CHECKING:
    from quickwins_codemod.attempting import Place
    from quickwins_codemod.compare import Comparison
    from quickwins_codemod.interpreters import Interpreter
    from quickwins_codemod.report import text
    from quickwins_codemod.trials import Trial
    from quickwins_codemod.verdict import RunResult

NOTHING, DUE, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class Refused(Exception):
    """What ends a command: one line for the user, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; whatever happens ends in one line."""
    terminal.replace_closed()
    try:
        code = _invoke(arguments)
        terminal.out("")  # what click wrote itself reaches its reader here, or not at all
        return code
    except terminal.OutputError as error:
        return _say(str(error), FAILED)


def _invoke(arguments: Sequence[str]) -> int:
    try:
        code = build(all_transforms()).main(
            args=list(arguments), prog_name="quickwins", standalone_mode=False
        )
        return code if isinstance(code, int) else NOTHING
    except Refused as refused:
        return _say(str(refused), refused.code)
    except ConfigError as error:
        return _say(str(error), USAGE)
    except click.ClickException as error:
        return _say(_usage(error), USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", INTERRUPTED)
    except SystemExit as leaving:  # click, when help goes to a pipe that nobody reads
        return leaving.code if isinstance(leaving.code, int) else FAILED
    except terminal.OutputError:
        raise
    except Exception as error:
        if os.environ.get("QUICKWINS_DEBUG"):
            import traceback

            terminal.err(traceback.format_exc())
        said = f"{type(error).__name__}: {error}"
        return _say(
            f"a defect of quickwins, please report it: {said} (QUICKWINS_DEBUG=1 shows more)",
            FAILED,
        )


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before click prints an empty line for it
            if terminal.is_terminal(sys.stderr):
                terminal.err("\n")  # after the ^C that a terminal shows
            raise Refused("interrupted", INTERRUPTED) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = suggest(args[0], self.commands)
            raise click.UsageError(f'no such command "{args[0]}"{near}', ctx)
        return super().resolve_command(ctx, args)


def build(rules: Sequence[Transform]) -> click.Group:
    """Return the commands, with a flag for each option of these rules."""
    group = _Commands(
        "quickwins",
        help="Rewrite PyTorch training scripts, as a diff that is read before it is applied.\n\n"
        "Exit codes: 0 done, 1 changes are due (check), 2 usage or configuration, 3 a file could "
        "not be processed (the others still are).",
    )
    group = click.version_option(__version__, prog_name="quickwins")(group)
    reads_tree = flags.reads_tree(rules)

    @group.command()
    @reads_tree
    @flags.writes_file("--patch", "Write what `git apply` takes to FILE, too.")
    @flags.writes_file("--html", "Write a page to review the changes by to FILE, too.")
    @click.pass_context
    def diff(
        context: click.Context, patch: Path | None, html: Path | None, **given: Any
    ) -> int:
        """Print one diff and a closing summary; change nothing.

        The diff goes to standard output, and the summary too on a terminal; into a pipe or file
        goes the diff alone, so that `quickwins diff . > x.patch` is what `git apply` takes.
        """
        result = _look(rules, given)
        if patch is not None:
            _write_patch(patch, result)
        if html is not None:
            _write_review(html, result, rules, lambda verb: flags.again(context, verb))
        _report(context, rules, result, "diff")
        return FAILED if result.errors else NOTHING

    @group.command()
    @reads_tree
    @click.pass_context
    def check(context: click.Context, **given: Any) -> int:
        """Print one line for each finding, for CI and hooks; change nothing."""
        result = _look(rules, given)
        _report(context, rules, result, "check")
        if result.errors:
            return FAILED
        return DUE if result.changes else NOTHING

    @group.command()
    @reads_tree
    @click.option(
        "-i", "--interactive", is_flag=True, help="Ask about each site, and write those taken."
    )
    @click.option("--allow-dirty", is_flag=True, help="Write to files with unstaged changes, too.")
    @click.pass_context
    def apply(
        context: click.Context, interactive: bool, allow_dirty: bool, **given: Any
    ) -> int:
        """Write the changes; a second run finds nothing to do."""
        if interactive:
            _check_dialogue(context)
        with _alone(given):
            result = _look(rules, given)
            if interactive:
                result = _review(rules, given, result, allow_dirty)
            result = _write(result, allow_dirty, flags.again(context, "apply"))
        _report(context, rules, result, "apply")
        hook_fails = _tell_hook(result)
        if result.errors:
            return FAILED
        return DUE if hook_fails else NOTHING

    @group.command()
    @click.argument(
        "folder",
        default=Path("."),
        type=click.Path(path_type=Path, exists=True, file_okay=False),
    )
    def undo(folder: Path) -> int:
        """Take the last apply back, if its files are as it left them.

        It is the last one at or below FOLDER, or above it in the same git repository; by default
        FOLDER is the current folder. Another `undo` takes the one before it back.
        """
        _undo(_here() / folder)
        return NOTHING

    @group.command()
    @click.argument("name", metavar="[CODE|RULE]", required=False)
    def explain(name: str | None) -> int:
        """Print the page of a code or a rule; without one, the table of all."""
        from quickwins_codemod.report import pages

        terminal.out(pages.table(rules) if name is None else pages.page(name, rules))
        return NOTHING

    @group.command()
    @flags.reads_tree(rules, named=False)
    def config(**given: Any) -> int:
        """Show the configuration in force, and where each value comes from.

        It is the one of a run over PATH, by default the current folder, with the same flags.
        """
        from quickwins_codemod.report import configuration as report

        _, settings = _settings(rules, {**given, "paths": given["paths"] or (Path("."),)})
        render = report.render_json if given["format"] == "json" else report.render_text
        terminal.out(render(report.entries(settings, rules)))
        return NOTHING

    @group.command()
    @click.argument("baseline")
    @click.argument("optimized")
    @flags.finds_runs
    @flags.writes_file("--html", "Write a page with table and curves to FILE, too.")
    def compare(baseline: str, optimized: str, html: Path | None, **given: Any) -> int:
        """Show two tracked runs side by side: metrics, speed, memory and the change.

        BASELINE and OPTIMIZED are each a tag, a run's name or id, or the path of a record (.jsonl)
        or of a folder of records. Several runs with one tag are averaged.
        """
        result = _compare((baseline, optimized), given)
        if html is not None:
            _write_page(html, result)
        _show_comparison(result, given["format"])
        return FAILED if result.problems else NOTHING

    @group.command("run")
    @flags.runs_script(rules)
    @click.option("--keep", is_flag=True, help="Keep the copy, with what the script wrote there.")
    def run_once(keep: bool, **given: Any) -> int:
        """Run the rewritten SCRIPT once, in a copy of the repository; touch nothing else.

        This executes the script. What belongs to it stands after `--`; the exit code is its own.
        Large files are linked into the copy, and copied before the script writes to them.
        """
        return _run_once(rules, given, keep)

    @group.command()
    @flags.runs_script(rules)
    @click.option(
        "--seeds",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        metavar="N",
        help="Runs of each variant; below two there is no verdict.",
    )
    @click.option("--ablate", is_flag=True, help="Run all wins but each, too.")
    @click.option(
        "--amp",
        type=click.Choice(["auto", "off", "fp16", "bf16"]),
        help="Set QUICKWINS_AMP for all runs: tries mixed precision on a CPU, too.",
    )
    @click.option(
        "--time-limit",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="End a run that takes longer.",
    )
    @click.option(
        "--restart/--resume",
        help="Forget what was done of this trial, or go on with it.  [default: resume]",
    )
    @flags.writes_file("--html", "Write a page with verdicts, table and curves to FILE, too.")
    @click.option(
        "--write-config",
        is_flag=True,
        help="Put the rules that helped into pyproject.toml; all else in it stays as it is.",
    )
    @flags.text_or_json
    @click.pass_context
    def trial(context: click.Context, **given: Any) -> int:
        """Run SCRIPT without and with the wins, in copies of the repository, and measure.

        This executes the script, once for each variant and seed: measured only (baseline), with
        each win alone, and with all. What belongs to it stands after `--`. An interrupted trial goes
        on where it stopped when the same command is given again.
        """
        return _trial(context, rules, given)

    return group


def _run_once(rules: Sequence[Transform], given: dict[str, Any], keep: bool) -> int:
    from quickwins_codemod import attempting, trial, workspace

    place, settings, interpreter = _script(rules, given)
    try:
        result = trial.rewrite(place, settings)
        if not result.changes:
            terminal.err("quickwins: no rule changes this script; it runs as it is\n")
        return trial.run_once(
            place, result, interpreter, given["arguments"], keep,
            lambda text: terminal.err(f"quickwins: {text}\n"),
        )  # fmt: skip
    except (attempting.AttemptError, workspace.WorkspaceError) as error:
        raise Refused(f"run: {error}", FAILED) from None


def _trial(context: click.Context, rules: Sequence[Transform], given: dict[str, Any]) -> int:
    from quickwins_codemod import attempting, trial, trials, workspace
    from quickwins_codemod.report import trial_progress

    place, settings, interpreter = _script(rules, given)
    request = trial.Request(
        place,
        given["arguments"],
        settings,
        rules,
        interpreter,
        seeds=given["seeds"],
        ablate=given["ablate"],
        amp=given["amp"] or "",
        time_limit=given["time_limit"],
        restart=given["restart"],
        words=flags.shared_words(context, rules),
        command=flags.again(context, "trial"),
    )
    lines = trial_progress.Lines()
    config = _check_outputs(given, place.root)  # before hours of training
    try:
        plan = trial.prepare(request)
        lines.begin(plan)
        found = plan.run(lines) if plan.trial.variants else plan.trial
    except trial.PlaceError as error:
        raise Refused(f"trial: {error}", USAGE) from None
    except trial.Interrupted as stopped:
        lines.interrupted(stopped.trial)
        return INTERRUPTED
    except (
        trial.UnreadableError, attempting.AttemptError, workspace.WorkspaceError, trials.TrialError,
    ) as error:  # fmt: skip
        raise Refused(f"trial: {error}", FAILED) from None
    return _show_trial(found, settings, rules, given, config)


def _script(
    rules: Sequence[Transform], given: dict[str, Any]
) -> tuple[Place, Settings, Interpreter]:
    """Find the script, what is in force for it, and the Python that runs it."""
    from quickwins_codemod import discovery, interpreters, trial

    try:
        place = trial.locate(given["script"], given["root"], _here())
        _recover(list(discovery.folders_with_state(place.root, above=True)))
        settings = configuration.load(place.root, rules, flags.take(rules, given))
        return place, settings, interpreters.find(given["python"], place.root)
    except (trial.PlaceError, interpreters.InterpreterError) as error:
        raise Refused(str(error), USAGE) from None


def _look(rules: Sequence[Transform], given: dict[str, Any]) -> RunResult:
    from quickwins_codemod import discovery, repository
    from quickwins_codemod.report.progress import Bar

    root, settings = _settings(rules, given)
    try:
        with Bar() as bar:
            return repository.run(
                given["paths"],
                root,
                settings,
                workers=given["workers"],
                progress=bar,
                before_reading=_recover,
            )
    except discovery.PathError as error:
        raise Refused(str(error), USAGE) from None


def _root(given: dict[str, Any]) -> Path:
    from quickwins_codemod import discovery

    try:
        return discovery.project_root(given["paths"], _here())
    except discovery.PathError as error:
        raise Refused(str(error), USAGE) from None


def _settings(rules: Sequence[Transform], given: dict[str, Any]) -> tuple[Path, Settings]:
    root = _root(given)
    return root, configuration.load(root, rules, flags.take(rules, given))


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:
        raise Refused("the current directory is no longer there", USAGE) from None


def _check_dialogue(context: click.Context) -> None:
    """Refuse to ask where nobody could answer, or where the questions would spoil a report."""
    if context.params["format"] != "text":
        raise click.UsageError("--interactive is for people, so --format must be text", context)
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)):
        raise click.UsageError(
            "--interactive asks questions, so standard input and output must be a terminal", context
        )


def _review(
    rules: Sequence[Transform], given: dict[str, Any], result: RunResult, allow_dirty: bool
) -> RunResult:
    from quickwins_codemod import repository, review
    from quickwins_codemod.report import paths, prompting

    _, settings = _settings(rules, given)
    here = paths.from_here(result).outcomes
    shown = {outcome.path: seen.path for outcome, seen in zip(result.outcomes, here)}
    person = prompting.Terminal(rules, shown)
    refused = repository.refusals(result, allow_dirty)
    result = review.refuse(result, refused, person)
    root = Path(result.root)
    result = review.review(result, lambda path: repository.planned(path, root, settings), person)
    terminal.out("\n")  # between the last answer and the summary
    return result


@contextmanager
def _alone(given: dict[str, Any]) -> Iterator[None]:
    """Keep other writers out from the first look at the files to the last byte."""
    from quickwins_codemod import writing

    try:
        with writing.locked(_root(given)):
            yield
    except writing.WriteError as error:
        raise Refused(str(error), FAILED) from None


def _write(result: RunResult, allow_dirty: bool, command: str) -> RunResult:
    from quickwins_codemod import repository

    return repository.write(result, allow_dirty, command)


def _recover(folders: Sequence[Path]) -> bool:
    """Take back what killed runs left half done; tell whether there was any."""
    if not folders:
        return False
    from quickwins_codemod import writing
    from quickwins_codemod.report import text

    any_found = False
    for folder in folders:
        try:
            found = writing.recover(folder)
        except writing.Busy as error:
            terminal.err(f"quickwins: {error}; what follows may be half of its work\n")
            continue
        except writing.WriteError as error:
            raise Refused(str(error), FAILED) from None
        if found is not None:
            any_found = True
            terminal.err("".join(f"quickwins: {line}\n" for line in text.recovered(found)))
    return any_found


def _undo(folder: Path) -> None:
    from quickwins_codemod import discovery, writing
    from quickwins_codemod.report import text

    roots = discovery.folders_with_state(folder.resolve(), above=True)
    try:
        root = writing.last_root(roots)
        if root is None:
            terminal.out("nothing to take back: no `quickwins apply` is recorded here\n")
            return
        killed = writing.recover(root)
        if killed is not None:
            terminal.out("".join(f"{line}\n" for line in text.recovered(killed)))
            return
        undone = writing.undo(root)
    except writing.WriteError as error:
        raise Refused(str(error), FAILED) from None
    if undone is not None:
        terminal.out(text.undone(undone))


def _write_patch(path: Path, result: RunResult) -> None:
    from quickwins_codemod.report import patch, paths

    try:
        patch.write(path, paths.for_git(result))
    except OSError as error:
        raise Refused(f"--patch {path}: cannot be written: {error.strerror}", USAGE) from None


def _write_review(
    path: Path, result: RunResult, rules: Sequence[Transform], again: Callable[[str], str]
) -> None:
    from quickwins_codemod.report import paths, review_page

    try:
        review_page.write(path, paths.for_git(result), rules, again)
    except OSError as error:
        raise Refused(f"--html {path}: cannot be written: {error.strerror}", USAGE) from None


def _compare(words: tuple[str, str], given: dict[str, Any]) -> Comparison:
    from quickwins_codemod import compare, runs

    try:
        root = _here() / given["root"]
        return runs.compared(words, root, given["wandb"], given["script"])
    except (runs.RunError, compare.CompareError) as error:
        raise Refused(f"compare: {error}", USAGE) from None
    except runs.UnreadableError as error:
        raise Refused(f"compare: {error}", FAILED) from None


def _write_page(path: Path, result: Comparison) -> None:
    from quickwins_codemod.report import comparison_page

    try:
        comparison_page.write(path, result)
    except OSError as error:
        raise Refused(f"--html {path}: cannot be written: {error.strerror}", USAGE) from None


def _show_comparison(result: Comparison, form: str) -> None:
    from quickwins_codemod.report import comparison

    if form == "json":
        comparison.show_json(result)
    else:
        comparison.show(result)


def _check_outputs(given: dict[str, Any], root: Path) -> Path | None:
    """Refuse what could not be written in the end; return the configuration that is asked for."""
    from quickwins_codemod import configedit

    page = given["html"]
    if page is not None and (page.is_dir() or not page.absolute().parent.is_dir()):
        raise Refused(f"--html {page}: cannot be written: not a file in a folder there is", USAGE)
    if not given["write_config"]:
        return None
    config: Path = given["config"] or configedit.target(root)
    configedit.check(config)
    return config


def _show_trial(
    found: Trial,
    settings: Settings,
    rules: Sequence[Transform],
    given: dict[str, Any],
    path: Path | None,
) -> int:
    """Report a trial, and return the exit code.

    It is 3 where a run failed, a win was not active, or the original changed. path: the configuration
    that is to get what is recommended, if one is.
    """
    from quickwins_codemod import configedit, judging

    judgement = judging.judge(found)
    select = judgement.recommendation.select
    options = configedit.chosen(select, settings, rules)
    config = configedit.lines(select, options) if select else ""
    if given["html"] is not None:
        from quickwins_codemod.report import trial_page

        try:
            trial_page.write(given["html"], judgement, config)
        except OSError as error:
            raise Refused(
                f"--html {given['html']}: cannot be written: {error.strerror}", USAGE
            ) from None
    if given["format"] == "json":
        from quickwins_codemod.report import trial_json

        trial_json.show(judgement, config)
    else:
        from quickwins_codemod.report import trial_text

        trial_text.show(judgement, config)
    if path is not None:
        terminal.err(f"quickwins: {configedit.put(path, select, options, rules)}\n")
    broken = any(a.status in ("failed", "timed-out") or a.defects for a in found.attempts)
    return FAILED if broken or found.changed else NOTHING


def _report(
    context: click.Context, rules: Sequence[Transform], result: RunResult, command: text.Command
) -> None:
    from quickwins_codemod.report import console

    if context.params["format"] != "text":
        console.show_for_programs(result, context.params["format"], command, rules)
        return
    if command == "diff":
        console.show_diff(result)
    elif command == "check":
        console.show_findings(result)
    page = context.params.get("html")
    console.show_summary(result, command, lambda verb: flags.again(context, verb), page)


def _tell_hook(result: RunResult) -> bool:
    """Under pre-commit, say what the commit needs now; tell whether the hook is to fail for it."""
    from quickwins_codemod.report import console

    if not (result.changes and console.in_hook()):
        return False
    stage = console.stage_command(result)
    terminal.err(f"quickwins: files were written; look at them, then: {stage}\n")
    return True


def _usage(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    place = context.command_path.removeprefix("quickwins").strip() if context else ""
    return f"{place}: {message}" if place else message


def _say(message: str, code: int) -> int:
    terminal.err(f"quickwins: {' '.join(message.split())}\n")
    return code
