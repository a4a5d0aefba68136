"""The options of a rule: what its `Options` dataclass asks for, checked and explained.

Configuration and command line both come through here, so that a value is refused in the same
words wherever it was written.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any


class OptionError(ValueError):
    """A value that an option does not take; the text says what is wrong with it."""


@dataclass(frozen=True)
class Option:
    """One field of a rule's Options.

    name: the field's own name; key: the same with dashes, as configuration and flags spell it.
    kind: int, float, bool or str; optional: whether None is a value too (by leaving it unset).
    minimum, maximum: what the value may be at least and at most; above, below: the same without
        the bound itself.
    """

    name: str
    kind: type
    default: Any
    help: str = ""
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        return self.name.replace("_", "-")

    def check(self, value: Any) -> Any:
        """Return the value as the option's own type, or raise OptionError."""
        value = self._typed(value)
        if self.choices and value not in self.choices:
            names = ", ".join(_show(choice) for choice in self.choices)
            raise OptionError(f"must be one of {names}, not {_show(value)}")
        for broken, words, bound in (
            (self.minimum is not None and value < self.minimum, "at least", self.minimum),
            (self.maximum is not None and value > self.maximum, "at most", self.maximum),
            (self.above is not None and value <= self.above, "greater than", self.above),
            (self.below is not None and value >= self.below, "less than", self.below),
        ):
            if broken:
                raise OptionError(f"must be {words} {_show(bound)}, not {_show(value)}")
        return value

    def _typed(self, value: Any) -> Any:
        # TOML tells 1, 1.0 and true apart; a whole number is a float too, but true is no number.
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise OptionError(f"must be {_KINDS[self.kind]}, not {_show(value)}")
        if self.kind is float and not math.isfinite(value):
            raise OptionError(f"must be a finite number, not {value}")
        return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def options_of(options_type: type) -> tuple[Option, ...]:
    """Describe each field of a rule's Options dataclass."""
    hints = typing.get_type_hints(options_type)
    return tuple(_option(field, hints[field.name]) for field in dataclasses.fields(options_type))


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    kinds = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = list(typing.get_args(hint))
    optional = type(None) in kinds
    kinds = [kind for kind in kinds if kind is not type(None)]
    if len(kinds) != 1 or kinds[0] not in _KINDS:
        raise TypeError(f"{field.name}: an option is int, float, bool, str or one of them or None")
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        raise TypeError(f"{field.name}: an option needs a default")
    about = field.metadata
    unknown = sorted(set(about) - _METADATA)
    if unknown:  # a misspelt bound would bound nothing
        raise TypeError(f"{field.name}: an option's metadata has no {', '.join(unknown)}")
    return Option(
        name=field.name,
        kind=kinds[0],
        default=default,
        help=about.get("help", ""),
        optional=optional,
        minimum=about.get("min"),
        maximum=about.get("max"),
        above=about.get("above"),
        below=about.get("below"),
        choices=tuple(about.get("choices", ())),
    )


_METADATA = {"help", "min", "max", "above", "below", "choices"}


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)
