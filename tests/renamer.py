"""Another spelling of a script: the names that it makes itself are renamed, consistently.

Renamed are variables, parameters, functions and classes, keywords in calls of the script's own
functions, and attributes that the script sets on self. What stays: imported names and what belongs
to them, keywords of other calls, attributes that torch's objects have too (`step`), names that are
looked up by a string, and those that mean something outside (`forward`, `test_...`).
"""

from __future__ import annotations

import builtins
import keyword
import re

import libcst as cst
import torch

_TORCHS = (
    torch.Tensor, torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler,
    torch.utils.data.DataLoader, torch.amp.GradScaler, dict, list, str,
)
_TORCHS_OWN = {"optimizer", "last_epoch", "base_lrs", "param_groups", "state", "defaults"}
_ATTRIBUTES_KEPT = _TORCHS_OWN | {name for kind in _TORCHS for name in dir(kind)}
_VARIABLES_KEPT = {*dir(builtins), *keyword.kwlist, "self", "cls"}
_PROTOCOL = re.compile(r"__\w+__|test_\w+|_")


def renamed(text: str) -> str:
    """The same program with every name that is its own turned into `name_1`, `name_2`, ..."""
    module = cst.parse_module(text)
    found = _Names(module)
    module.visit(found)
    variables = found.variables - found.imported - _VARIABLES_KEPT - found.looked_up
    attributes = found.attributes - found.foreign_attributes - _ATTRIBUTES_KEPT - found.looked_up
    new = {
        name: f"name_{index}"
        for index, name in enumerate(sorted(variables | attributes), 1)
        if not _PROTOCOL.fullmatch(name)
    }
    return module.visit(_Rename(
        {name: new[name] for name in variables if name in new},
        {name: new[name] for name in attributes if name in new},
        found.own_callables,
    )).code


def _callee(call: cst.Call) -> str:
    func = call.func
    return func.attr.value if isinstance(func, cst.Attribute) else getattr(func, "value", "")


class _Names(cst.CSTVisitor):
    """The names that a module makes, and those that come from elsewhere."""

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.variables: set[str] = set()
        self.attributes: set[str] = set()
        self.imported: set[str] = set()
        self.foreign_attributes: set[str] = set()
        self.looked_up: set[str] = set()
        self.own_callables: set[str] = set()
        self._classes: list[cst.ClassDef] = []
        self._functions = 0
        self._instances = {"self", *_instances(module)}

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.variables.add(node.name.value)
        self.own_callables.add(node.name.value)
        self._classes.append(node)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self._classes.pop()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        name = node.name.value
        if self._classes and not self._functions:
            if self._classes[-1].bases:  # forward, setup: a base may call it
                self.foreign_attributes.add(name)
            else:
                self.attributes.add(name)
                self.own_callables.add(name)
        else:
            self.variables.add(name)
            self.own_callables.add(name)
        self._functions += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._functions -= 1

    def visit_Param(self, node: cst.Param) -> None:
        self.variables.add(node.name.value)

    def visit_Import(self, node: cst.Import) -> bool:
        return self._import(node)

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return self._import(node)

    def _import(self, node: cst.CSTNode) -> bool:
        self.imported |= set(re.findall(r"\w+", cst.Module([]).code_for_node(node)))
        return False

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self._target(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if self._classes and not self._functions:  # a dataclass's field is a keyword too
            self.foreign_attributes.add(cst.Module([]).code_for_node(node.target))
        else:
            self._target(node.target)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._target(node.target)

    def visit_For(self, node: cst.For) -> None:
        self._target(node.target)

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self._target(node.target)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._target(node.target)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._target(node.name)

    def _target(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.Name):
            in_class = self._classes and not self._functions
            (self.attributes if in_class else self.variables).add(node.value)
        elif isinstance(node, (cst.Tuple, cst.List)):
            for element in node.elements:
                self._target(element.value)
        elif isinstance(node, cst.StarredElement):
            self._target(node.value)
        elif isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name):
            if node.value.value == "self":
                self.attributes.add(node.attr.value)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        base = node.value
        made = isinstance(base, cst.Call) and _callee(base) in self.own_callables
        if not made and not (isinstance(base, cst.Name) and base.value in self._instances):
            self.foreign_attributes.add(node.attr.value)

    def visit_Call(self, node: cst.Call) -> None:
        if _callee(node) in ("getattr", "hasattr", "setattr", "fields", "asdict"):
            self.looked_up |= set(re.findall(r"[\"'](\w+)[\"']", cst.Module([]).code_for_node(node)))

    def visit_Comparison(self, node: cst.Comparison) -> None:
        code = cst.Module([]).code_for_node(node)
        if "locals()" in code or "globals()" in code:
            self.looked_up |= set(re.findall(r"[\"'](\w+)[\"']", code))


def _instances(module: cst.Module) -> set[str]:
    """Names that are given to instances of the module's own classes."""
    code = module.code
    classes = set(re.findall(r"^\s*class (\w+)", code, re.M))
    return {name for name, made in re.findall(r"(\w+) = (\w+)\(", code) if made in classes}


class _Rename(cst.CSTTransformer):
    def __init__(
        self, variables: dict[str, str], attributes: dict[str, str], own_callables: set[str]
    ) -> None:
        super().__init__()
        self.variables, self.attributes = variables, attributes
        self.own_callables = own_callables
        self._as_attributes: set[cst.CSTNode] = set()
        self._kept: set[cst.CSTNode] = set()
        self._in_class = [False]

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._in_class.append(True)

    def leave_ClassDef(self, original_node, updated_node):
        self._in_class.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        if self._in_class[-1]:
            self._as_attributes.add(node.name)
        self._in_class.append(False)

    def leave_FunctionDef(self, original_node, updated_node):
        self._in_class.pop()
        return updated_node

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        if self._in_class[-1] and isinstance(node.target, cst.Name):
            self._as_attributes.add(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if self._in_class[-1]:
            self._as_attributes.add(node.target)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self._as_attributes.add(node.attr)

    def visit_Call(self, node: cst.Call) -> None:
        if _callee(node) not in self.own_callables:
            self._kept |= {a.keyword for a in node.args if a.keyword is not None}

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        if original_node in self._kept:
            return updated_node
        names = self.attributes if original_node in self._as_attributes else self.variables
        return updated_node.with_changes(value=names.get(original_node.value, original_node.value))
