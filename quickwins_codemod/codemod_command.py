"""A quick win as a command of libcst's own codemod tool, for people who run those."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from typing import Any

import libcst as cst
from libcst.codemod import CodemodCommand, CodemodContext, SkipFile

from quickwins_codemod import pipeline
from quickwins_codemod.options import options_of
from quickwins_codemod.source import SourceError


def command(module_name: str, class_name: str) -> type[CodemodCommand]:
    """Build the command of the transform in a module; its name there must be class_name.

    Worker processes find the class by that name again.
    """
    module = importlib.import_module(module_name)
    title = (module.__doc__ or "").split("\n", 1)[0]

    class Command(CodemodCommand):
        DESCRIPTION = (
            f"{title} The bundled runtime that the rewritten script imports (quickwins_runtime) is "
            "not placed this way: run `quickwins apply` for that, or copy it yourself."
        )

        @staticmethod
        def add_args(arg_parser: argparse.ArgumentParser) -> None:
            for option in options_of(module.Options):
                arg_parser.add_argument(
                    f"--{option.key}", type=option.kind, default=option.default, help=option.help
                )

        def __init__(self, context: CodemodContext, **values: Any) -> None:
            super().__init__(context)
            known = {f.name for f in dataclasses.fields(module.Options)}
            self.options = module.Options(**{k: v for k, v in values.items() if k in known})

        def transform_module_impl(self, tree: cst.Module) -> cst.Module:
            try:
                text, verdicts = pipeline.rewrite(tree.code, module.RULE, self.options)
            except SourceError as error:
                raise SkipFile(f"{error.code} line {error.line}: {error.message}") from None
            for verdict in verdicts:
                if verdict.status in ("refused", "warning"):
                    self.warn(f"{verdict.line}:{verdict.column} {verdict.code} {verdict.message}")
            return tree if text == tree.code else cst.parse_module(text, tree.config_for_parsing)

    Command.__module__, Command.__qualname__, Command.__name__ = module_name, class_name, class_name
    return Command
