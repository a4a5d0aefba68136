"""One file: decode, parse, read, plan, rewrite, check. The only module that ties these together."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quickwins_codemod import bundle, optout, sieve
from quickwins_codemod.settings import FILE_RULE, Settings
from quickwins_codemod.source import Source, SourceError, decode, read_bytes
from quickwins_codemod.transform import Finding, Transform, all_transforms
from quickwins_codemod.verdict import FileOutcome, Touched, Verdict, file_status

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.edits import Edit
    from quickwins_codemod.script.facts import Script
    from quickwins_codemod.script.neighbours import Neighbours


@dataclass(frozen=True)
class Context:
    """What a run knows that a single file does not."""

    root: Path
    runtime_home: Path
    settings: Settings


class SelfCheckError(Exception):
    """The rewritten text is not what was planned: a defect of a transform."""


def process(path: Path, context: Context) -> FileOutcome | None:
    """Look at one file and say what would become of it; None where no rule can apply to it."""
    found = planned(path, context)
    if not isinstance(found, Planned):
        return found
    try:
        return found.outcome()
    except SelfCheckError as error:
        verdict = Verdict(
            FILE_RULE, "refused", "QW005", 1, 1, f"the rewrite failed its self-check: {error}",
            "the file is left as it is; please report it",
        )
        return FileOutcome(found.path, "refused", (verdict,), before=found.source.data)


def planned(path: Path, context: Context) -> Planned | FileOutcome | None:
    """Look at one file and say what was found in it; else its outcome, or None, as `process`."""
    relative = path.relative_to(context.root).as_posix()
    data = b""
    try:
        data = read_bytes(path)
        transforms = _applicable(data, context.settings)
        if not transforms and not sieve.mentions_opt_out(data):
            return None
        return _planned(decode(path, data), relative, transforms, context)
    except SourceError as error:
        verdict = Verdict(
            FILE_RULE, "refused", error.code, error.line, error.column, error.message
        )
        return FileOutcome(relative, "error", (verdict,), before=data)


def check_text(path: Path, data: bytes) -> None:
    """Raise SourceError for bytes that Python would not take as this file."""
    _compiles(decode(path, data).text)


def rewrite(text: str, rule: str, options: object) -> tuple[str, tuple[Verdict, ...]]:
    """Return one module's text rewritten by one rule, and the verdicts.

    For callers without a repository (libcst's own codemod command): the runtime is imported as if
    it could be found, and not placed. Raises SourceError for a text that cannot be taken up and
    SelfCheckError for a rewrite that fails its check.
    """
    transforms = [t for t in all_transforms() if t.rule == rule]
    settings = Settings(rules={rule: options})
    script = _read(_parse(text))
    findings = _findings(script, transforms, settings, [rule])
    verdicts = _in_order(findings)
    if not any(f.edits for f in findings):
        return text, verdicts
    new, edits = _rewritten(script, findings, settings, None)
    _check(text, new, script, findings, edits, transforms, settings)
    return new, verdicts


def _applicable(data: bytes, settings: Settings) -> list[Transform]:
    return [
        t
        for t in all_transforms()
        if settings.wants_rule(t.rule, (c.code for c in t.codes)) and t.is_candidate(data)
    ]


@dataclass(frozen=True, eq=False)
class Planned:
    """One file with all that was found in it, before it is settled which of that is done."""

    path: str
    source: Source
    script: Script
    findings: tuple[Finding, ...]
    transforms: tuple[Transform, ...]
    context: Context
    neighbours: Neighbours

    def kept(self, declined: Collection[Finding] = ()) -> list[Finding]:
        """What is left without these findings, and without those that need one of them."""

        def wanted(findings: Iterable[Finding]) -> list[Finding]:
            return [f for f in findings if not any(f is other for other in declined)]

        return _with_partners(self.findings, wanted) if declined else list(self.findings)

    def outcome(self, declined: Collection[Finding] = ()) -> FileOutcome:
        """What becomes of the file without these findings; raises SelfCheckError."""
        source, script, settings = self.source, self.script, self.context.settings
        findings = self.kept(declined)
        verdicts = _in_order(findings)
        if not any(f.edits for f in findings):
            return FileOutcome(self.path, file_status(verdicts), verdicts, before=source.data)
        new, edits = _rewritten(script, findings, settings, _importer(source, self.context))
        try:
            data = source.encode(new)
        except UnicodeEncodeError as error:
            raise SelfCheckError(str(error)) from None
        if decode(source.path, data).text != new:
            raise SelfCheckError("the encoding does not hold the new text")
        left = [f for f in self.findings if not any(f is other for other in findings)]
        _check(
            source.text, new, script, findings, edits, self.transforms, settings,
            self.neighbours, left,
        )
        touched = _touched(script, findings, edits)
        return FileOutcome(self.path, "changed", verdicts, source.data, data, touched)


def _planned(
    source: Source, relative: str, transforms: Sequence[Transform], context: Context
) -> Planned:
    settings = context.settings
    _compiles(source.text)
    neighbours = _neighbours(source, context)
    script = _read(_parse(source.text), neighbours)
    # A rule that found no word of its own in the bytes has been heard, too.
    heard = [
        t.rule for t in all_transforms()
        if settings.wants_rule(t.rule, (code.code for code in t.codes))
    ]
    findings = tuple(_findings(script, transforms, settings, heard))
    return Planned(relative, source, script, findings, tuple(transforms), context, neighbours)


def _compiles(text: str) -> None:
    """Python's own verdict on the text; ten times cheaper than the parse that follows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError as error:
        code = "QW006" if str(error.msg).startswith("too many") else "QW001"
        raise SourceError(
            code, f"cannot be parsed: {error.msg}", error.lineno or 1, error.offset or 1
        ) from None
    except (RecursionError, MemoryError):
        raise SourceError("QW006", "is nested deeper than Python's parser can follow") from None
    except ValueError as error:
        raise SourceError("QW001", f"cannot be parsed: {error}") from None


def _parse(text: str) -> cst.Module:
    import libcst as cst

    try:
        return cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise SourceError(
            "QW001", "uses syntax that libcst cannot parse", error.raw_line, error.raw_column + 1
        ) from None
    except RecursionError:
        raise SourceError("QW006", "is nested deeper than can be followed") from None


def _neighbours(source: Source, context: Context) -> Neighbours:
    from quickwins_codemod.script.neighbours import Neighbours

    added = [path for _, path in bundle.static_sys_path(ast.parse(source.text), source.path)]
    folders = [source.path.parent, *added, context.root]
    return Neighbours(source.path, list(dict.fromkeys(folders)), context.root)


def _read(module: cst.Module, neighbours: Neighbours | None = None) -> Script:
    from quickwins_codemod.script.reading import read

    try:
        return read(module, neighbours)
    except RecursionError:
        raise SourceError("QW006", "is nested deeper than can be followed") from None


def _findings(
    script: Script, transforms: Sequence[Transform], settings: Settings, heard: Sequence[str] = ()
) -> list[Finding]:
    """What is left under the settings and the file's opt-outs, and what is to say of the latter.

    heard: the rules whose opt-outs are known to silence nothing where they did not.
    """
    opt_outs = optout.OptOuts(script.tree.text, all_transforms())
    planned = [
        finding
        for t in transforms
        for finding in t.plan(script, settings.rules.get(t.rule) or t.options_type()).findings
    ]

    def wanted(findings: Iterable[Finding]) -> list[Finding]:
        return _wanted(opt_outs.without(findings, script.tree), settings)

    left = _with_partners(planned, wanted)
    return left + _wanted((Finding((v,)) for v in opt_outs.remarks(heard)), settings)


def _wanted(findings: Iterable[Finding], settings: Settings) -> list[Finding]:
    """The findings without what is not to be reported, and without those whose edits are not."""
    left = []
    for finding in findings:
        said = tuple(v for v in finding.verdicts if settings.wants(v.rule, v.code))
        if all(v in said for v in finding.applied):
            left.append(replace(finding, verdicts=said))
    return left


def _with_partners(
    planned: Sequence[Finding], wanted: Callable[[Iterable[Finding]], list[Finding]]
) -> list[Finding]:
    """The wanted findings; one whose partner is not wanted gives way to a word on that."""
    left = wanted(planned)
    while True:
        there = {v for finding in left for v in finding.applied}
        lone = {
            finding: said
            for finding in left for partner, said in finding.partners if partner not in there
        }
        if not lone:
            return left
        left = [finding for finding in left if finding not in lone]
        left += wanted(Finding((said,)) for said in lone.values())


def _in_order(findings: Sequence[Finding]) -> tuple[Verdict, ...]:
    verdicts = [v for f in findings for v in f.verdicts]
    return tuple(sorted(verdicts, key=lambda v: (v.line, v.column, v.code)))


def _rewritten(
    script: Script,
    findings: Sequence[Finding],
    settings: Settings,
    importer: tuple[Source, Path] | None,
) -> tuple[str, list[Edit]]:
    from quickwins_codemod.rewriting import ConflictingEdits, apply_edits

    edits = [e for f in findings for e in f.edits]
    names = frozenset(n for f in findings for n in f.runtime_names)
    try:
        edits = [*edits, *_imports(script, names, edits, settings, importer)]
        return apply_edits(script.tree, edits).code, edits
    except ConflictingEdits as error:
        raise SelfCheckError(str(error)) from None


def _importer(source: Source, context: Context) -> tuple[Source, Path] | None:
    return None if context.settings.runtime == "installed" else (source, context.runtime_home)


def _imports(
    script: Script,
    names: frozenset[str],
    edits: Sequence[Edit],
    settings: Settings,
    importer: tuple[Source, Path] | None,
) -> list[Edit]:
    from quickwins_codemod.script.imports import import_edit

    origin = "quickwins_codemod.runtime" if settings.runtime == "installed" else bundle.PACKAGE
    line, after = None, 0
    if importer is not None:
        source, home = importer
        additions = bundle.static_sys_path(ast.parse(source.text), source.path)
        line = bundle.sys_path_line(source.path, home, [path for _, path in additions])
        lines = [last for last, path in additions if path.resolve() == home.resolve()]
        after = min(lines, default=0)
    edit = import_edit(script, names, origin, edits, line, after)
    return [edit] if edit is not None else []


def _touched(
    script: Script, findings: Sequence[Finding], edits: Sequence[Edit]
) -> tuple[Touched, ...]:
    """Say where each finding was carried out; what is no finding's own edit is their import."""
    from quickwins_codemod.selfcheck import touched_lines

    found = [
        Touched(touched_lines(script, f.edits), _applied(f)) for f in findings if f.edits
    ]
    own = {id(edit) for f in findings for edit in f.edits}
    shared = [edit for edit in edits if id(edit) not in own]
    needed = tuple(v for f in findings if f.runtime_names for v in _applied(f))
    if shared:
        found.append(Touched(touched_lines(script, shared), needed, imports=True))
    return tuple(found)


def _applied(finding: Finding) -> tuple[Verdict, ...]:
    return tuple(v for v in finding.verdicts if v.status == "applied")


def _check(
    old: str,
    new: str,
    script: Script,
    findings: Sequence[Finding],
    edits: Sequence[Edit],
    transforms: Sequence[Transform],
    settings: Settings,
    neighbours: Neighbours | None = None,
    declined: Sequence[Finding] = (),
) -> None:
    """Refuse a text that does not compile, strays from the plan, or is not a fixpoint.

    declined: what a second run may find, since it was left out on purpose.
    """
    from quickwins_codemod.selfcheck import stray_line

    try:
        _compiles(new)
    except SourceError as error:
        raise SelfCheckError(f"line {error.line} {error.message}") from None
    stray = stray_line(old, new, script, edits)
    if stray is not None:
        raise SelfCheckError(f"line {stray} differs, which was not planned")
    second = _findings(_read(_parse(new), neighbours), transforms, settings)
    if Counter(_changing(second)) - Counter(_changing(declined)):
        raise SelfCheckError("a second run would change it again")
    applied = {v.rule for f in findings for v in f.verdicts if v.status == "applied"}
    already = {v.rule for f in second for v in f.verdicts if v.status == "already"}
    if not applied <= already:
        missing = ", ".join(sorted(applied - already))
        raise SelfCheckError(f"a second run does not see what was done for {missing}")


def _changing(findings: Sequence[Finding]) -> list[frozenset[tuple[str, str, str]]]:
    """What each finding with edits would do; where it stands shifts when lines above it change."""
    return [
        frozenset((v.rule, v.code, v.message) for v in f.applied) for f in findings if f.edits
    ]
