"""The flags that the commands share, and one flag for each option of each rule."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from quickwins_codemod.configuration import Flags
from quickwins_codemod.options import Option, OptionError, options_of
from quickwins_codemod.transform import Transform

#: Names that the commands themselves use; a rule's option of such a name bears the rule's, too.
_TAKEN = frozenset(
    "select ignore exclude format workers config patch allow-dirty help version html cache"
    " no-cache interactive python root keep seeds ablate amp time-limit restart".split()
)
#: Flags that say how one command works, and mean nothing to the one that is typed after it.
_OWN = {"format", "patch", "workers", "allow_dirty", "interactive", "html", "restart"}
#: How a command that reads a tree can report: for people, then for programs.
FORMATS = ("text", "json", "sarif", "github", "junit")


@dataclass(frozen=True)
class RuleFlag:
    """One option of one rule, and the flag that sets it."""

    rule: str
    option: Option
    flag: str

    @property
    def parameter(self) -> str:
        return self.flag[2:].replace("-", "_")

    def check(self, context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.option.check(value)
        except OptionError as error:
            raise click.BadParameter(str(error), context, parameter) from None


def rule_flags(rules: Sequence[Transform]) -> list[RuleFlag]:
    """Return a flag for each option; rules that share a name for one get their own name before."""
    options = [(rule.rule, option) for rule in rules for option in options_of(rule.options_type)]
    uses = Counter(option.key for _, option in options)
    return [
        RuleFlag(rule, option, f"--{option.key}" if plain else f"--{rule}-{option.key}")
        for rule, option in options
        for plain in [uses[option.key] == 1 and option.key not in _TAKEN]
    ]


def reads_tree(rules: Sequence[Transform], named: bool = True) -> Callable[[Any], Any]:
    """Decorate a command with the arguments of all commands that read a tree.

    named: whether a path must be given.
    """

    def decorate(command: Any) -> Any:
        for parameter in reversed([*_shared(named), *map(_as_click, rule_flags(rules))]):
            command = parameter(command)
        return command

    return decorate


def runs_script(rules: Sequence[Transform]) -> Callable[[Any], Any]:
    """Decorate a command with the arguments of those that run a script in a copy."""

    def decorate(command: Any) -> Any:
        for parameter in reversed([*_script(), *_choice(), *map(_as_click, rule_flags(rules))]):
            command = parameter(command)
        return command

    return decorate


def writes_file(flag: str, text: str) -> Callable[[Any], Any]:
    """Return the option of a command that writes a file, too."""
    kind = click.Path(path_type=Path, readable=False)
    return click.option(flag, type=kind, metavar="FILE", help=text)


def finds_runs(command: Any) -> Any:
    """Decorate a command with what says where runs are looked for, and how they are shown."""
    for parameter in reversed([*_places(), _format(("text", "json"))]):
        command = parameter(command)
    return command


def text_or_json(command: Any) -> Any:
    """Decorate a command with the choice of a report for people or for programs."""
    return _format(("text", "json"))(command)


def take(rules: Sequence[Transform], given: Mapping[str, Any]) -> Flags:
    """Gather what the command line said about the configuration."""
    options: dict[str, dict[str, Any]] = {}
    for flag in rule_flags(rules):
        value = given.get(flag.parameter)
        if value is not None:
            options.setdefault(flag.rule, {})[flag.option.name] = value
    return Flags(
        config=given["config"],
        select=given["select"],
        ignore=given["ignore"],
        exclude=given["exclude"],
        options=options,
    )


def again(context: click.Context, verb: str) -> str:
    """Return the command line that does the same with another verb, ready to be pasted."""
    flags: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if not _is_given(context, name) or name in _OWN:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            words = [str(word) for word in (value if isinstance(value, tuple) else (value,))]
            if "--" not in arguments and any(word.startswith("-") for word in words):
                arguments.append("--")
            arguments += words
        else:
            flags += _spelled(parameter, value)
    return shlex.join(["quickwins", verb, *flags, *arguments])


def shared_words(context: click.Context, rules: Sequence[Transform]) -> tuple[str, ...]:
    """Return the flags about the rewriting, but --select, as they were given."""
    names = {flag.parameter for flag in rule_flags(rules)} | {"ignore", "exclude", "config", "root"}
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and _is_given(context, name):
            words += _spelled(parameter, context.params[name])
    return tuple(words)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _spelled(parameter: click.Parameter, value: Any) -> list[str]:
    flag = max(parameter.opts, key=len)
    if isinstance(value, bool):
        return [flag if value else parameter.secondary_opts[0]]
    values = value if isinstance(value, tuple) else (value,)
    return [word for item in values for word in (flag, str(item))]


def _shared(named: bool) -> Iterator[Callable[[Any], Any]]:
    yield click.argument(
        "paths",
        metavar="PATH..." if named else "[PATH]...",
        nargs=-1,
        required=named,
        type=click.Path(path_type=Path, readable=False),
    )
    yield from _choice()
    yield _format(FORMATS)
    yield click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Processes to use; 0, the default, chooses.",
    )


def _choice() -> Iterator[Callable[[Any], Any]]:
    names = {"multiple": True, "callback": _split, "metavar": "NAMES"}
    yield click.option("--select", help="Only these rules or codes, with commas between.", **names)
    yield click.option("--ignore", help="Not these rules or codes either.", **names)
    yield click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out what matches, too; the syntax of .gitignore.",
    )
    yield click.option(
        "--config",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help="Read [tool.quickwins] there, not in the nearest pyproject.toml.",
    )


def _script() -> Iterator[Callable[[Any], Any]]:
    yield click.argument("script")
    yield click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS...]")
    yield click.option(
        "--python",
        metavar="PATH",
        help="The Python that has torch. Left out: that of the active environment, or of PATH.",
    )
    yield click.option(
        "--root",
        type=click.Path(path_type=Path, readable=False),
        metavar="DIR",
        help="The folder to copy. Left out: the top of the git repository, or the current folder.",
    )


def _places() -> Iterator[Callable[[Any], Any]]:
    yield click.option(
        "--root",
        type=click.Path(path_type=Path, readable=False),
        default=Path("."),
        metavar="DIR",
        help="Look for records at and below DIR, not the current folder.",
    )
    yield click.option(
        "--script",
        metavar="PATH",
        help="Only runs of the script with this path, or whose path ends so.",
    )
    yield click.option(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="Read runs from the wandb server, not from this disk.",
    )


def _format(choices: Sequence[str]) -> Callable[[Any], Any]:
    return click.option(
        "--format",
        type=click.Choice(choices),
        default="text",
        show_default=True,
        help="For people, or for programs.",
    )


def _split(context: click.Context, parameter: click.Parameter, given: Any) -> tuple[str, ...]:
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


def _as_click(flag: RuleFlag) -> Callable[[Any], Any]:
    option = flag.option
    default = "unset" if option.default is None else str(option.default).lower()
    text = f"{flag.rule}: {option.help or option.name.replace('_', ' ')} [default: {default}]"
    spelled = flag.flag
    kind: Any = option.kind
    if kind is bool:
        spelled, kind = f"{flag.flag}/--no-{flag.flag[2:]}", None
    elif option.choices:
        kind = click.Choice([str(choice) for choice in option.choices])
    return click.option(
        spelled, flag.parameter, type=kind, default=None, help=text, callback=flag.check
    )
