"""Names and values: which variable an expression names, and which calls made its value.

A value is known by the call that created it. `optimizer` in main, the parameter `opt` of a
function it is passed to and `self.optimizer` in a class that stored it all lead back to the same
`Adam(...)` call, and that identity is what the rest of the analysis compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

import libcst as cst

from quickwins_codemod.script.tree import FUNCTIONS, Tree, children, walk

Scope = Union[cst.FunctionDef, cst.Lambda, cst.Module, cst.ClassDef]


@dataclass(frozen=True)
class Variable:
    """A name in a scope: a local, a module global, or an attribute of a class's instances."""

    scope: cst.CSTNode
    name: str


@dataclass(frozen=True)
class Assignment:
    """One binding of a variable.

    value is the expression bound, or None where the source does not show it (a loop target, an
    import, a parameter); index is the position taken out of value when a tuple was unpacked.
    """

    variable: Variable
    value: cst.BaseExpression | None
    statement: cst.CSTNode
    target: cst.CSTNode
    index: int | None = None
    kind: str = "assign"


class Names:
    """Resolves names, attributes of self, imports and local calls of one module."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.imports: dict[Variable, str] = {}
        self.assignments: dict[Variable, list[Assignment]] = {}
        self.functions: dict[Variable, cst.FunctionDef] = {}
        self.classes: dict[Variable, cst.ClassDef] = {}
        self._locals: dict[cst.CSTNode, set[str]] = {}
        self._elsewhere: dict[cst.CSTNode, dict[str, cst.CSTNode]] = {}
        self.callers: dict[cst.CSTNode, list[cst.Call]] = {}
        self._resolved: dict[cst.CSTNode, Variable | None] = {}
        self._creations: dict[tuple[cst.CSTNode, int | None], frozenset[cst.Call]] = {}
        self._collect_locals()
        self._collect_bindings()
        # Twice: which function `obj.method()` runs may depend on what callers pass for obj.
        for _ in range(2):
            self._collect_calls()
            self._creations.clear()

    # -- scopes ---------------------------------------------------------------------------

    def _collect_locals(self) -> None:
        tree = self.tree
        for kind in (cst.Global, cst.Nonlocal):
            for node in tree.all(kind):
                scope = tree.function(node)
                for item in node.names:
                    home = tree.module if kind is cst.Global else self._outer(scope)
                    self._elsewhere.setdefault(scope, {})[item.name.value] = home
        for kind in (cst.FunctionDef, cst.Lambda):
            for function in tree.all(kind):
                for parameter in all_parameters(function.params):
                    self._bind_local(function, parameter.name.value)
        for kind in (cst.FunctionDef, cst.ClassDef):
            for node in tree.all(kind):
                self._bind_local(self._home(node), node.name.value)

    def _outer(self, scope: cst.CSTNode) -> cst.CSTNode:
        return scope if isinstance(scope, cst.Module) else self._function_home(scope)

    def _function_home(self, node: cst.CSTNode) -> cst.CSTNode:
        """The function or module around a node, classes passed over: methods see no class names."""
        return next(a for a in self.tree.ancestors(node) if isinstance(a, FUNCTIONS))

    def _home(self, node: cst.CSTNode) -> cst.CSTNode:
        """Where a definition's name lives: a function, the module, or a class body."""
        return next(
            a for a in self.tree.ancestors(node) if isinstance(a, (*FUNCTIONS, cst.ClassDef))
        )

    def _bind_local(self, scope: cst.CSTNode, name: str) -> None:
        self._locals.setdefault(scope, set()).add(name)

    def _binding_scope(self, node: cst.CSTNode) -> cst.CSTNode:
        """The scope that a plain-name target at this node binds in."""
        for ancestor in self.tree.ancestors(node):
            if isinstance(ancestor, (*FUNCTIONS, cst.ClassDef)):
                return ancestor
        return self.tree.module

    # -- variables ------------------------------------------------------------------------

    def variable(self, node: cst.CSTNode) -> Variable | None:
        """The variable that an expression names: a name, self.x, or a constant-key subscript."""
        if isinstance(node, cst.Name):
            return self._name_variable(node)
        if isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name):
            owner = self.instance_class(node.value)
            if owner is not None:
                return Variable(self.root_class(owner), f"self.{node.attr.value}")
            base = self._name_variable(node.value)
            return base and Variable(base.scope, f"{base.name}.{node.attr.value}")
        if isinstance(node, cst.Subscript) and len(node.slice) == 1:
            index = node.slice[0].slice
            if isinstance(index, cst.Index) and isinstance(
                index.value, (cst.SimpleString, cst.Integer)
            ):
                base = self.variable(node.value)
                return base and Variable(base.scope, f"{base.name}[{index.value.value}]")
        return None

    def _name_variable(self, node: cst.Name) -> Variable | None:
        if node not in self._resolved:
            self._resolved[node] = self._resolve_name(node)
        return self._resolved[node]

    def _resolve_name(self, node: cst.Name) -> Variable | None:
        name = node.value
        first = True
        for scope in self.tree.ancestors(node):
            if isinstance(scope, cst.ClassDef):
                if first and name in self._locals.get(scope, ()):
                    return Variable(scope, name)
                continue
            if not isinstance(scope, FUNCTIONS):
                continue
            first = False
            home = self._elsewhere.get(scope, {}).get(name)
            if home is not None:
                return Variable(home, name)
            if name in self._locals.get(scope, ()):
                return Variable(scope, name)
        return Variable(self.tree.module, name) if self._is_module_name(name) else None

    def _is_module_name(self, name: str) -> bool:
        return name in self._locals.get(self.tree.module, ())

    def instance_class(self, name: cst.Name) -> cst.ClassDef | None:
        """The class of `self` (a method's first parameter) in the method around this name."""
        for scope in self.tree.ancestors(name):
            if not isinstance(scope, cst.FunctionDef):
                continue
            owner = self.method_class(scope)
            positional = [*scope.params.posonly_params, *scope.params.params]
            if owner is not None and positional and positional[0].name.value == name.value:
                return owner
            if name.value in self._locals.get(scope, ()):
                return None
        return None

    def method_class(self, function: cst.CSTNode) -> cst.ClassDef | None:
        """The class whose instance method this function is."""
        if not isinstance(function, cst.FunctionDef):
            return None
        block = self.tree.parents.get(function)
        owner = self.tree.parents.get(block) if block is not None else None
        if not isinstance(owner, cst.ClassDef):
            return None
        decorators = {self.tree.code(d.decorator) for d in function.decorators}
        return None if decorators & {"staticmethod", "classmethod"} else owner

    def root_class(self, owner: cst.ClassDef) -> cst.ClassDef:
        """The topmost base defined in this module; a hierarchy shares one set of attributes."""
        seen = set()
        while owner not in seen:
            seen.add(owner)
            for base in owner.bases:
                parent = self.local_class(base.value)
                if parent is not None:
                    owner = parent
                    break
        return owner

    def hierarchy(self, owner: cst.ClassDef) -> list[cst.ClassDef]:
        """The class, then its bases in this module, nearest first."""
        order = [owner]
        for item in order:
            for base in item.bases:
                parent = self.local_class(base.value)
                if parent is not None and parent not in order:
                    order.append(parent)
        return order

    # -- bindings -------------------------------------------------------------------------

    def _collect_bindings(self) -> None:
        tree = self.tree
        targets: list[tuple[cst.CSTNode, cst.BaseExpression | None, cst.CSTNode, str]] = []
        for node in tree.all(cst.Assign):
            targets += [(t.target, node.value, node, "assign") for t in node.targets]
        for node in tree.all(cst.AnnAssign):
            if node.value is not None:
                targets.append((node.target, node.value, node, "assign"))
        for node in tree.all(cst.AugAssign):
            targets.append((node.target, None, node, "augment"))
        for node in tree.all(cst.NamedExpr):
            targets.append((node.target, node.value, tree.statement(node), "assign"))
        for node in tree.all(cst.For):
            targets.append((node.target, None, node, "loop"))
        for node in tree.all(cst.CompFor):
            targets.append((node.target, None, tree.statement(node), "comprehension"))
        for node in tree.all(cst.With):
            targets += [
                (i.asname.name, i.item, node, "with") for i in node.items if i.asname is not None
            ]
        for node in tree.all(cst.ExceptHandler):
            if node.name is not None:
                targets.append((node.name.name, None, node, "except"))
        flat = [item for entry in targets for item in _unpack(*entry)]
        for target, *_ in flat:
            if isinstance(target, cst.Name):
                scope = self._binding_scope(target)
                if target.value not in self._elsewhere.get(scope, {}):
                    self._bind_local(scope, target.value)
        self._collect_imports()
        self._resolved.clear()  # every local name is known from here on
        for node in tree.all(cst.FunctionDef):
            self.functions[Variable(self._home(node), node.name.value)] = node
        for node in tree.all(cst.ClassDef):
            self.classes[Variable(self._home(node), node.name.value)] = node
        for target, value, statement, kind, index in flat:
            variable = self.variable(target)
            if variable is not None:
                self._bind(Assignment(variable, value, statement, target, index, kind))

    def _bind(self, assignment: Assignment) -> None:
        self.assignments.setdefault(assignment.variable, []).append(assignment)

    def _collect_imports(self) -> None:
        for node in self.tree.all(cst.Import):
            for alias in node.names:
                dotted = self.tree.code(alias.name)
                bound = alias.asname.name.value if alias.asname else dotted.split(".")[0]
                self._import(node, bound, dotted if alias.asname else bound)
        for node in self.tree.all(cst.ImportFrom):
            if isinstance(node.names, cst.ImportStar):
                continue
            origin = "." * len(node.relative) + (
                self.tree.code(node.module) if node.module is not None else ""
            )
            for alias in node.names:
                name = alias.name.value
                bound = alias.asname.name.value if alias.asname else name
                self._import(node, bound, f"{origin}.{name}" if origin.strip(".") else origin + name)

    def _import(self, node: cst.CSTNode, bound: str, dotted: str) -> None:
        scope = self._binding_scope(node)
        self._bind_local(scope, bound)
        variable = Variable(scope, bound)
        self.imports.setdefault(variable, dotted)
        self._bind(Assignment(variable, None, node, node, kind="import"))

    def dotted(self, node: cst.CSTNode) -> str | None:
        """The full name of an imported thing: `optim.Adam` is "torch.optim.Adam"."""
        if isinstance(node, cst.Name):
            variable = self._name_variable(node)
            if variable is not None and variable in self.imports:
                return self.imports[variable]
            if variable is None:
                return node.value
            return None
        if isinstance(node, cst.Attribute):
            base = self.dotted(node.value)
            return base and f"{base}.{node.attr.value}"
        return None

    def local_class(self, node: cst.CSTNode) -> cst.ClassDef | None:
        variable = self._name_variable(node) if isinstance(node, cst.Name) else None
        return self.classes.get(variable) if variable is not None else None

    # -- calls ----------------------------------------------------------------------------

    def _collect_calls(self) -> None:
        self._callee: dict[cst.Call, cst.FunctionDef | None] = {}
        callers: dict[cst.CSTNode, list[cst.Call]] = {}
        for call in self.tree.all(cst.Call):
            function = self.callee(call)
            if function is not None:
                callers.setdefault(function, []).append(call)
        self.callers = callers

    def callee(self, call: cst.Call) -> cst.FunctionDef | None:
        """The function of this module that a call runs, a class's __init__ included."""
        if call not in self._callee:
            self._callee[call] = None  # a call that asks for itself while it is resolved
            self._callee[call] = self._resolve_callee(call.func)
        return self._callee[call]

    def _resolve_callee(self, func: cst.CSTNode) -> cst.FunctionDef | None:
        if isinstance(func, cst.Name):
            variable = self._name_variable(func)
            if variable is None:
                return None
            if variable in self.functions:
                return self.functions[variable]
            owner = self.classes.get(variable)
            return self.method(owner, "__init__") if owner is not None else None
        if isinstance(func, cst.Attribute):
            owner = self.class_of(func.value)
            return self.method(owner, func.attr.value) if owner is not None else None
        return None

    def class_of(self, node: cst.CSTNode) -> cst.ClassDef | None:
        """The local class whose instance an expression is."""
        if isinstance(node, cst.Name):
            owner = self.instance_class(node)
            if owner is not None:
                return owner
        if isinstance(node, cst.Call):
            if isinstance(node.func, cst.Name) and node.func.value == "super":
                inner = self.tree.enclosing_class(node)
                bases = self.hierarchy(inner)[1:] if inner is not None else []
                return bases[0] if bases else None
            return self.local_class(node.func)
        if not isinstance(node, (cst.Name, cst.Attribute, cst.Subscript)):
            return None
        owners = {self.local_class(call.func) for call in self.creations(node)}
        return owners.pop() if len(owners) == 1 else None

    def method(self, owner: cst.ClassDef, name: str) -> cst.FunctionDef | None:
        for item in self.hierarchy(owner):
            function = self.functions.get(Variable(item, name))
            if function is not None:
                return function
        return None

    def arguments(self, call: cst.Call, function: cst.FunctionDef) -> dict[str, cst.BaseExpression] | None:
        """Parameter name to argument; None when * or ** hide which is which."""
        parameters = [*function.params.posonly_params, *function.params.params]
        if self.method_class(function) is not None:
            parameters = parameters[1:]
        bound: dict[str, cst.BaseExpression] = {}
        position = 0
        for argument in call.args:
            if argument.star:
                return None
            if argument.keyword is not None:
                bound[argument.keyword.value] = argument.value
            elif position < len(parameters):
                bound[parameters[position].name.value] = argument.value
                position += 1
        return bound

    # -- values ---------------------------------------------------------------------------

    def creations(self, node: cst.CSTNode, index: int | None = None) -> frozenset[cst.Call]:
        """The calls that may have made the value of an expression (its index-th element)."""
        key = (node, index)
        if key not in self._creations:
            self._creations[key] = frozenset()  # breaks cycles: x = x, mutual recursion
            self._creations[key] = frozenset(self._find_creations(node, index))
        return self._creations[key]

    def _find_creations(self, node: cst.CSTNode, index: int | None) -> Iterator[cst.Call]:
        if isinstance(node, cst.IfExp):
            yield from self.creations(node.body, index)
            yield from self.creations(node.orelse, index)
        elif isinstance(node, cst.BooleanOperation):
            yield from self.creations(node.left, index)
            yield from self.creations(node.right, index)
        elif isinstance(node, cst.NamedExpr):
            yield from self.creations(node.value, index)
        elif isinstance(node, (cst.Tuple, cst.List)):
            if index is not None and index < len(node.elements):
                yield from self.creations(node.elements[index].value)
        elif isinstance(node, cst.Call):
            yield from self._call_creations(node, index)
        else:
            variable = self.variable(node)
            if variable is not None:
                yield from self._variable_creations(variable, index)
            elif isinstance(node, cst.Attribute):
                owner = self.class_of(node.value)
                if owner is not None:
                    variable = Variable(self.root_class(owner), f"self.{node.attr.value}")
                    yield from self._variable_creations(variable, index)

    def _call_creations(self, call: cst.Call, index: int | None) -> Iterator[cst.Call]:
        function = self.callee(call)
        if function is None or function.name.value == "__init__":
            if index is None:
                yield call
            return
        for returned in self.returns(function):
            yield from self.creations(returned, index)

    def returns(self, function: cst.FunctionDef) -> list[cst.BaseExpression]:
        return [
            r.value
            for r in self.tree.all(cst.Return)
            if r.value is not None and self.tree.function(r) is function
        ]

    def _variable_creations(self, variable: Variable, index: int | None) -> Iterator[cst.Call]:
        for assignment in self.assignments.get(variable, ()):
            if assignment.value is not None:
                if assignment.index is None:
                    yield from self.creations(assignment.value, index)
                elif index is None:
                    yield from self.creations(assignment.value, assignment.index)
            elif assignment.kind == "loop" and isinstance(
                assignment.statement.iter, (cst.Tuple, cst.List)
            ):
                for element in assignment.statement.iter.elements:
                    yield from self.creations(element.value, index)
        scope = variable.scope
        if "." in variable.name and not variable.name.startswith("self."):
            yield from self._attribute_creations(variable, index)
        if isinstance(scope, cst.FunctionDef):
            for value in self.parameter_values(scope, variable.name):
                yield from self.creations(value, index)

    def _attribute_creations(self, variable: Variable, index: int | None) -> Iterator[cst.Call]:
        """`trainer.optimizer` where trainer is an instance of a class of this module."""
        name, _, attribute = variable.name.partition(".")
        owners = {
            self.local_class(call.func)
            for call in self._variable_creations(Variable(variable.scope, name), None)
        }
        owner = owners.pop() if len(owners) == 1 else None
        if owner is not None:
            inner = Variable(self.root_class(owner), f"self.{attribute}")
            yield from self._variable_creations(inner, index)

    def foreign_calls(self, node: cst.CSTNode) -> list[tuple[cst.Call, int | None]]:
        """Calls of functions outside this module that made a value, and which element it is."""
        found: list[tuple[cst.Call, int | None]] = []
        seen: set[Variable] = set()
        queue = [node]
        while queue:
            variable = self.variable(queue.pop())
            if variable is None or variable in seen:
                continue
            seen.add(variable)
            for assignment in self.assignments.get(variable, ()):
                value = assignment.value
                if isinstance(value, cst.Call) and self.callee(value) is None:
                    found.append((value, assignment.index))
                elif value is not None and assignment.index is None:
                    queue.append(value)
            if isinstance(variable.scope, cst.FunctionDef):
                queue += self.parameter_values(variable.scope, variable.name)
        return found

    def parameter_values(self, function: cst.FunctionDef, name: str) -> list[cst.BaseExpression]:
        """What the callers in this module pass for a parameter."""
        if all(p.name.value != name for p in all_parameters(function.params)):
            return []
        values = []
        for call in self.callers.get(function, ()):
            value = (self.arguments(call, function) or {}).get(name)
            if value is not None:
                values.append(value)
        return values

    def references(self, creation: cst.Call) -> list[cst.CSTNode]:
        """Every expression that reads the value a call created, in source order."""
        found = []
        for kind in (cst.Name, cst.Attribute, cst.Subscript):
            for node in self.tree.all(kind):
                if not self._is_read(node):
                    continue
                if creation in self.creations(node):
                    found.append(node)
        return sorted(found, key=self.tree.order.__getitem__)

    def reads_within(self, node: cst.BaseExpression, outer: cst.CSTNode) -> list[cst.CSTNode]:
        """Every expression inside a node that reads the variable another expression names."""
        variable = self.variable(node)
        return [
            n for n in walk(outer)
            if type(n) is type(node) and self.variable(n) == variable and self._is_read(n)
        ]

    def _is_read(self, node: cst.CSTNode) -> bool:
        parent = self.tree.parents.get(node)
        if isinstance(parent, (cst.AssignTarget, cst.AnnAssign)) and parent.target is node:
            return False
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            return False
        if isinstance(parent, (cst.Arg,)) and parent.keyword is node:
            return False
        if isinstance(parent, (cst.Param, cst.FunctionDef, cst.ClassDef, cst.ImportAlias)):
            return getattr(parent, "name", None) is not node
        if isinstance(parent, cst.Element) and _is_target(self.tree, parent):
            return False
        return True


def _is_target(tree: Tree, node: cst.CSTNode) -> bool:
    while isinstance(node, (cst.Element, cst.Tuple, cst.List, cst.StarredElement)):
        child, node = node, tree.parents[node]
    if isinstance(node, (cst.AssignTarget, cst.For, cst.CompFor)):
        return node.target is child
    return False


def _unpack(
    target: cst.CSTNode, value: cst.BaseExpression | None, statement: cst.CSTNode, kind: str
) -> Iterator[tuple[cst.CSTNode, cst.BaseExpression | None, cst.CSTNode, str, int | None]]:
    """A target taken apart: `a, b = f()` binds a to element 0 of f() and b to element 1."""
    if not isinstance(target, (cst.Tuple, cst.List)):
        yield target, value, statement, kind, None
        return
    same = isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(target.elements)
    for index, element in enumerate(target.elements):
        if isinstance(element.value, (cst.Tuple, cst.List)):
            inner = value.elements[index].value if same else None
            yield from _unpack(element.value, inner, statement, kind)
        elif same:
            yield element.value, value.elements[index].value, statement, kind, None
        else:
            yield element.value, value, statement, kind, index


def all_parameters(params: cst.Parameters) -> list[cst.Param]:
    found = [*params.posonly_params, *params.params, *params.kwonly_params]
    for star in (params.star_arg, params.star_kwarg):
        if isinstance(star, cst.Param):
            found.append(star)
    return found


def names_in(node: cst.CSTNode) -> Iterator[cst.Name]:
    """The plain names read in an expression (not attribute names or keywords)."""
    stack = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, cst.Name):
            yield current
        elif isinstance(current, cst.Attribute):
            stack.append(current.value)
        elif isinstance(current, cst.Arg):
            stack.append(current.value)
        else:
            stack.extend(children(current))

