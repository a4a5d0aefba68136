"""What a quick win builds beside an optimizer (a schedule, a scaler): its name, and who sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickwins_codemod.edits import AddArgument, AddParameter, Edit
from quickwins_codemod.script.facts import Frame, Script, Training

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.placing import Place

#: What the thing is called where its plain name is taken.
_PREFIXES = {"scheduler": "lr", "scaler": "grad", "negatives": "hard"}
_WORDS = ("optimizer", "optimiser", "optim", "opt")


class Unreachable(Exception):
    """The companion cannot be seen where it is needed; `why` is a key of the transform's words."""

    def __init__(self, why: str, node: cst.CSTNode, name: str = "") -> None:
        super().__init__(why)
        self.why, self.node, self.name = why, node, name


@dataclass
class Site:
    """Where a companion is built.

    kind: `replace` an old one, `after` the optimizer, `before` the outer loop, or `late`: before
    the loop in another method. declared: the statement that declares it as None in __init__.
    """

    kind: str
    statement: cst.CSTNode
    place: Place
    reference: str
    optimizer: str
    declared: cst.CSTNode | None = None
    arguments: list[str] = field(default_factory=list)


class Companion:
    """Names, hands on and saves one thing that is built beside an optimizer."""

    def __init__(self, script: Script, training: Training, word: str) -> None:
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.optimizer, self.word = training.optimizer, word

    @property
    def line_length(self) -> int:
        return self.placing.line_length

    def fresh_reference(
        self, functions: Iterable[cst.CSTNode], shared: bool = False
    ) -> str | None:
        """A free name like the optimizer's own: `scheduler` or `scheduler_g` beside `optimizer_g`.

        shared: it serves several optimizers, and is named after none of them.
        """
        base, dot, name = self.optimizer.reference.rpartition(".")
        if not name.isidentifier() or (base and base != "self"):
            return None
        derived = f"{name}_{self.word}"
        found = next((w for w in _WORDS if w in name.lower()), None)
        if shared:
            derived = self.word
        elif found is not None:
            start = name.lower().index(found)
            rest = name[start + len(found):]
            if len(rest) == 1 and rest.islower():  # `optm`
                rest = ""
            derived = name[:start] + self.word + rest
        for candidate in (derived, f"{_PREFIXES[self.word]}_{derived}", f"quickwins_{derived}"):
            if dot:
                variable = type(self.optimizer.variable)(
                    self.optimizer.variable.scope, f"self.{candidate}"
                )
                if variable not in self.names.assignments:
                    return f"{base}.{candidate}"
            elif self.placing.is_free(candidate, functions):
                return candidate
        return None

    def sees(self, function: cst.CSTNode, home: cst.CSTNode, name: str) -> bool:
        """A nested function, or any function for a global, sees the name without being given it."""
        return self.tree.is_within(function, home) and self.placing.scope_of(function, name) in (
            None, home
        )

    def reach(
        self, site: Site, frames: Sequence[Frame], stepped: cst.BaseExpression
    ) -> tuple[str, bool, list[Edit]]:
        """How it is named in the innermost function, whether it may be None, and what that takes.

        stepped: the optimizer as that function names it; a function that is given the optimizer is
        given its companion too, since it may be called with another pair.
        """
        function, home = frames[0].function, self.tree.function(site.statement)
        if "." in site.reference:
            if self.names.method_class(home) is not self.names.method_class(function):
                raise Unreachable("base-class", site.statement)
            return site.reference, site.declared is not None and home is not function, []
        handed = self.placing.is_parameter(stepped, function)
        if home is function or (not handed and self.sees(function, home, site.reference)):
            return site.reference, False, []
        return site.reference, True, self._pass_on(site, frames, home)

    def _pass_on(self, site: Site, frames: Sequence[Frame], home: cst.CSTNode) -> list[Edit]:
        """Hand it down through every function between its place and the innermost one."""
        functions = [f.function for f in frames]
        if home not in functions:
            raise Unreachable("out-of-reach", site.statement)
        name, edits = site.reference, []
        for frame in reversed(frames[: functions.index(home)]):
            if not self.placing.is_free(name, [frame.function]) or frame.call is None:
                raise Unreachable("name-taken", frame.function, name)
            code = f"{name}={name}"
            hang = self.placing.hang(frame.call, code, self.line_length)
            edits += [
                AddParameter(frame.function, f"{name}=None"), AddArgument(frame.call, code, hang)
            ]
        return edits

    def visible(self, statement: cst.CSTNode, site: Site) -> str | None:
        """Its name at a statement, where it surely exists by then."""
        home, function = self.tree.function(site.statement), self.tree.function(statement)
        if function is home:
            return site.reference if self.placing.dominates(site.statement, statement) else None
        if "." in site.reference:
            owner, here = self.names.method_class(home), self.names.method_class(function)
            same = owner and here and self.names.root_class(owner) is self.names.root_class(here)
            return site.reference if same else None
        return site.reference if self.sees(function, home, site.reference) else None

    def state(self, value: cst.CSTNode, statement: cst.CSTNode, site: Site) -> str | None:
        """Its state as a checkpoint's value, mirrored from the optimizer's."""
        reference = self.visible(statement, site)
        guard = self.placing.existence_guard(value)
        if guard is not None and site.reference.isidentifier():
            same = self.tree.function(statement) is self.tree.function(site.statement)
            quoted = guard.replace(self.optimizer.reference, site.reference)
            return f"{site.reference}.state_dict() if {quoted} else None" if same else None
        if reference is None:
            return None
        if site.declared is not None:
            return f"{reference}.state_dict() if {reference} is not None else None"
        return f"{reference}.state_dict()"

    def key(self, key: str) -> str:
        """A checkpoint's key like the optimizer's: `scheduler_state_dict`."""
        short = {"scheduler": "sched"}.get(self.word, self.word)
        for word, other in zip(_WORDS, (self.word, self.word, short, short)):
            if word in key:
                return key.replace(word, other)
        return f"{key}_{self.word}"
