"""Which tracked runs there are: records on this disk, and runs on the wandb server.

A run is asked for by a tag, by its wandb name, by its id, or by the path of its record. All runs
that bear a tag belong together; by another name one run is meant.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from quickwins_codemod import compare
from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    SPEED,
    Epoch,
    Header,
    RecordError,
    Run,
    bare,
    number_of,
    plain,
)
from quickwins_codemod.discovery import STATE, folders_with_state
from quickwins_codemod.settings import short, suggest

#: Names another folder of records, for the runtime that writes them as for us.
VARIABLE = "QUICKWINS_RUNS"
_RECORDS = Path(STATE, "runs")
_SUFFIX = ".jsonl"
_LISTED = 10
#: So many runs of a project on the server are listed where the wanted one is not among them.
_PROJECT_RUNS = 200


class RunError(Exception):
    """Runs that were asked for and are not there, or not one thing; one line for the user."""


class UnreadableError(Exception):
    """A wanted run that is there and cannot be read; one line for the user."""


@dataclass(frozen=True)
class _Entry:
    """A run that could be meant, and how to read its epochs."""

    header: Header
    load: Callable[[], Run]
    size: int = 0


@dataclass
class _Shelf:
    """Where runs are looked for: what it is called, what is there, and what could not be read.

    given: it is a record or a folder that was named by its path, so that all of it is meant.
    unread: for each such record its stem, which is the id of its run, and what is wrong.
    """

    where: str
    given: bool = False
    entries: list[_Entry] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)


def compared(
    words: tuple[str, str], root: Path, server: str | None = None, script: str | None = None
) -> compare.Comparison:
    """Find the runs of both words and compare them.

    root: the folder at and below which records are looked for. server: ENTITY/PROJECT on the wandb
    server, to look there instead. script: only runs of scripts whose path ends so.
    Raises RunError, UnreadableError, compare.CompareError.
    """
    shelf = _on_disk(root) if server is None else _on_server(server, words)
    problems: list[str] = []
    sides: list[list[Run]] = []
    for word in words:
        given = _at_path(word) if server is None else None
        chosen, broken = _chosen(word, given or shelf, script)
        runs = []
        for entry in chosen:
            try:
                runs.append(entry.load())
            except RecordError as error:
                broken.append(str(error))
        if not runs:
            raise UnreadableError("; ".join(broken))
        problems += broken
        sides.append(runs)
    both = {run.header.id for run in sides[0]} & {run.header.id for run in sides[1]}
    if both:
        raise RunError(
            f'"{plain(words[0])}" and "{plain(words[1])}" both name the run {plain(min(both))};'
            " name two different ones"
        )
    return compare.compare(sides[0], sides[1], words, list(dict.fromkeys(problems)))


# Choosing


def _chosen(word: str, shelf: _Shelf, script: str | None) -> tuple[list[_Entry], list[str]]:
    """Return the runs that a word stands for, and what is wrong with records that may be its."""
    entries = _each_once(shelf.entries)
    tagged = [entry for entry in entries if shelf.given or word in entry.header.tags]
    named = [entry for entry in entries if word in entry.header.names and entry not in tagged]
    if shelf.given:
        tags = sorted({tag for entry in tagged for tag in entry.header.tags or ("no tag",)})
        if len(tags) > 1:
            raise RunError(
                f"{plain(word)} holds runs of several tags ({_some(tags)}); name one of the tags,"
                " and the folder by --root"
            )
    elif tagged and named:
        raise RunError(
            f'"{plain(word)}" is ambiguous in {shelf.where}: it is the tag of'
            f" {_ids(tagged)} and a name of {_ids(named)}; name them by id or path"
        )
    elif len(named) > 1:
        raise RunError(
            f'"{plain(word)}" is ambiguous in {shelf.where}: {_ids(named)} bear that name;'
            " name one by its id, or give them one tag"
        )
    broken = [message for stem, message in shelf.unread if shelf.given or stem == word]
    found = tagged or named
    if not found and broken:
        raise UnreadableError("; ".join(broken))
    if not found:
        raise RunError(_not_found(word, shelf))
    if tagged:
        # Whose a record without a first line is, nobody knows; it may be one of these runs'.
        broken = [message for _, message in shelf.unread]
        found = _of_one_script(word, found, script)
    return found, broken


def _of_one_script(word: str, found: list[_Entry], script: str | None) -> list[_Entry]:
    scripts = sorted({entry.header.script for entry in found} - {""})
    if script is not None:
        found = [entry for entry in found if compare.is_script(entry.header.script, script)]
        if not found:
            raise RunError(
                f'no run of "{plain(word)}" is of the script {plain(script)}; there are runs of'
                f" {_some(scripts) or 'unknown scripts'}{plain(suggest(script, scripts))}"
            )
        scripts = sorted({entry.header.script for entry in found})
    if not compare.one_script(scripts):
        raise RunError(
            f'the runs of "{plain(word)}" are of several scripts ({_some(scripts)}); choose one by'
            f" --script {plain(scripts[0])}"
        )
    return found


def _each_once(entries: Sequence[_Entry]) -> list[_Entry]:
    """Take a record that was copied once: ids are random, so the longest copy is the newest."""
    longest: dict[str, _Entry] = {}
    for entry in entries:
        other = longest.get(entry.header.id)
        if other is None or entry.size > other.size:
            longest[entry.header.id] = entry
    return sorted(longest.values(), key=lambda entry: (entry.header.started, entry.header.id))


def _not_found(word: str, shelf: _Shelf) -> str:
    tags = sorted({tag for entry in shelf.entries for tag in entry.header.tags})
    names = sorted({name for entry in shelf.entries for name in entry.header.names})
    if not shelf.entries:
        there = "no run was recorded there"
    elif tags:
        there = f"tags there: {_some(tags)}"
    else:
        there = f"no run there has a tag; names there: {_some(names)}"
    unread = f"; {len(shelf.unread)} could not be read" if shelf.unread else ""
    return (
        f'no run with the tag, name or id "{plain(word)}" in {shelf.where}; {there}{unread}'
        f"{plain(suggest(word, (*tags, *names)))}"
    )


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(map(plain, words[:_LISTED])) + more


def _ids(entries: Sequence[_Entry]) -> str:
    return _some([entry.header.id for entry in entries])


# Records on this disk


def _on_disk(root: Path) -> _Shelf:
    if not root.is_dir():
        raise RunError(f"--root {plain(short(root))}: no such folder")
    where = f"the {_RECORDS.as_posix()} folders of {_place(root)}"
    paths = list(_below(root))
    other = os.environ.get(VARIABLE)
    if other:
        where += f" or in {VARIABLE} ({plain(short(Path(other)))})"
        paths += _directly_in(Path(other))
    return _filled(_Shelf(where), paths)


def _at_path(word: str) -> _Shelf | None:
    """Return the runs of a path; a bare word is none, even if a folder happens to be called so."""
    path = Path(word)
    is_path = word.endswith(_SUFFIX) or "/" in word or os.sep in word or word in (".", "..")
    if not is_path:
        return None
    if path.is_dir():
        paths = _directly_in(path) or list(_below(path))
    elif path.is_file():
        paths = [path]
    elif path.exists():
        raise RunError(f"{plain(word)}: is neither a file nor a folder")
    else:
        raise RunError(f"{plain(word)}: no such file or folder")
    found = _filled(_Shelf(plain(word), given=True), paths)
    if not found.entries and not found.unread:
        raise RunError(f"{plain(word)}: holds no record of a run (a file {_SUFFIX}) with an epoch")
    return found


def _filled(shelf: _Shelf, paths: Iterable[Path]) -> _Shelf:
    seen = set()
    for path in paths:
        real, source = os.path.realpath(path), plain(short(path))
        if real in seen:
            continue
        seen.add(real)
        try:
            header = compare.read_header(path, source)
            size = path.stat().st_size
        except (RecordError, OSError) as error:
            shelf.unread.append((path.stem, str(error)))
            continue
        if header is not None:
            shelf.entries.append(_Entry(header, partial(compare.read, path, source), size))
    return shelf


def _below(root: Path) -> Iterator[Path]:
    """Find all records that were written at and below a folder, in a fixed order."""
    for folder in folders_with_state(root):
        yield from _directly_in(folder / _RECORDS)


def _directly_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.name.endswith(_SUFFIX) and p.is_file())
    except OSError:
        return []


def _place(root: Path) -> str:
    name = short(root)
    return "the current folder" if name == "." else plain(name)


# Runs on the wandb server


def _on_server(project: str, words: Sequence[str]) -> _Shelf:
    """List the runs of a project that these words may stand for, or some that it has."""
    entity, _, name = project.partition("/")
    if not entity or not name or "/" in name:
        raise RunError(f"--wandb {plain(project)}: must be ENTITY/PROJECT")
    shelf = _Shelf(f"the wandb project {plain(project)}")
    wanted = [{key: word} for word in words for key in ("tags", "displayName", "name")]
    with _Server(project) as api:
        for run in api.runs(project, filters={"$or": wanted}):
            header = _server_header(run, run.metadata)
            shelf.entries.append(_Entry(header, partial(_server_run, project, run, header)))
        known = {word for e in shelf.entries for word in (*e.header.tags, *e.header.names)}
        if not known.issuperset(words):  # for the message that says what is there
            for run in itertools.islice(api.runs(project), _PROJECT_RUNS):
                header = _server_header(run, None)
                shelf.entries.append(_Entry(header, partial(_server_run, project, run, header)))
    return shelf


class _Server:
    """The API of wandb, with its errors made into one line."""

    def __init__(self, project: str) -> None:
        self.about = f"--wandb {plain(project)}"

    def __enter__(self) -> Any:
        try:
            import wandb
        except ImportError:
            raise RunError(
                f"{self.about}: needs the package wandb, which is not installed here"
            ) from None
        try:
            return wandb.Api()
        except Exception as error:
            self._fail(error)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._fail(error)

    def _fail(self, error: Exception) -> Any:
        said = plain(str(error)) or type(error).__name__
        lower = said.lower()
        if type(error).__name__ == "UsageError" or "api key" in lower or "log in" in lower:
            raise RunError(
                f"{self.about}: not logged in; run `wandb login` first ({said})"
            ) from None
        if "not find" in lower or "not found" in lower or "404" in lower:
            raise RunError(
                f"{self.about}: no such project, or not yours to read ({said})"
            ) from None
        raise UnreadableError(f"{self.about}: the server cannot be read: {said}") from None


def _server_header(run: Any, about: Any) -> Header:
    """Make the header of a run; about: its metadata, which takes another request."""
    about = about if isinstance(about, Mapping) else {}
    arguments = about.get("args")
    return Header(
        id=str(run.id),
        tags=tuple(map(str, run.tags or ())),
        names=tuple(dict.fromkeys((str(run.id), str(run.name)))),
        script=str(about.get("codePath") or about.get("program") or ""),
        arguments=tuple(map(str, arguments)) if isinstance(arguments, list) else (),
        started=str(getattr(run, "created_at", None) or ""),
        python=str(about.get("python") or ""),
        device=str(about.get("gpu") or ""),
        source=str(getattr(run, "url", None) or run.id),
    )


def _server_run(project: str, run: Any, header: Header) -> Run:
    with _Server(project):
        rows = [dict(row) for row in run.scan_history()]
    return Run(header, tuple(_epochs(rows)))


def _epochs(rows: Sequence[Mapping[str, Any]]) -> Iterator[Epoch]:
    """Make epochs of logged rows: those with what we measure, else those of a validation.

    A script may log each batch as well, and these rows are none.
    """
    kinds = (_is_measured, _is_validation)
    kind = next((kind for kind in kinds if any(map(kind, rows))), bool)
    rates: tuple[float, ...] = ()
    number = 0
    for row in rows:
        known = [number_of(row[name]) for name in row if _is_rate(name)]
        rates = tuple(rate for rate in known if rate is not None) or rates
        if kind(row):
            number += 1
            metrics = {
                name: number_of(found)
                for name, found in row.items()
                if isinstance(found, (int, float)) and not isinstance(found, bool)
                if not name.startswith("_") and name != "epoch" and not _is_rate(name)
            }
            yield Epoch(number, number_of(row.get("_runtime")), rates, metrics)


def _is_measured(row: Mapping[str, Any]) -> bool:
    names = set(map(bare, row))
    return SPEED in names or EPOCH_SECONDS in names or any(n.startswith("ndcg@") for n in names)


def _is_validation(row: Mapping[str, Any]) -> bool:
    return any(bare(name) != name for name in row)


def _is_rate(name: str) -> bool:
    return name.rpartition("/")[2] in ("learning_rate", "lr")
