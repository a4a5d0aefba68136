"""Branches that hold nothing any more once some statements are gone."""

from __future__ import annotations

from collections.abc import Mapping

import libcst as cst

from quickwins_codemod.script.tree import Tree, statements_of, walk

_EFFECTS = (cst.Await, cst.Yield, cst.NamedExpr)


def emptied(
    tree: Tree, removed: Mapping[cst.CSTNode, str | None]
) -> dict[cst.CSTNode, str | None]:
    """`if` statements and branches that hold nothing but removed statements go with them."""
    gone: dict[cst.CSTNode, str | None] = dict(removed)
    grew = True
    while grew:
        grew = False
        for statement in [s for s in gone if not isinstance(s, cst.Else)]:
            owner = tree.parents.get(tree.block(statement))
            if isinstance(owner, cst.Else):
                above = tree.parents[owner]
                inside = all(s in gone for s in statements_of(owner.body))
                if isinstance(above, cst.If) and inside and owner not in gone:
                    gone[owner] = gone[statement]
                    grew = True
                owner = above if isinstance(above, cst.If) else None
            if not isinstance(owner, cst.If) or owner in gone:
                continue
            below_gone = owner.orelse is None or owner.orelse in gone
            if below_gone and all(s in gone for s in statements_of(owner.body)):
                if _is_harmless(owner.test):
                    gone[owner] = gone[statement]
                    grew = True
    return {node: topic for node, topic in gone.items() if node not in removed}


def _is_harmless(test: cst.BaseExpression) -> bool:
    calls = [n for n in walk(test) if isinstance(n, cst.Call)]
    return not any(isinstance(n, _EFFECTS) for n in walk(test)) and all(
        isinstance(c.func, cst.Name) and c.func.value in ("isinstance", "hasattr") for c in calls
    )
