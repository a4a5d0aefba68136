"""The highest learning rate that an existing schedule reaches, where the source tells it."""

from __future__ import annotations

from quickwins_codemod.script.facts import Optimizer, Scheduler, Script


def peak_of(script: Script, scheduler: Scheduler, optimizer: Optimizer) -> str | None:
    return ""
