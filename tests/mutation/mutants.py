"""One wrong thing at a time in a file of Python: operators, bounds, constants, branches, arguments, statements."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

from tests.mutation.swaps import alternatives

# (field of the parent, place in a list of children or None); a list of these leads from the module to a node.
Step = tuple[str, int | None]
# What is no maths: declarations, what the type checker reads, the examples that tests run on, the words of an error.
NO_MATHS = (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr)
NOT_ENTERED = {"annotation", "returns", "decorator_list", "bases", "keywords_of_class"}
DECLARATIONS = {"__all__", "EXAMPLES"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        number: Its place in the list of the file's mutants, from 0 on.
        line: Where, from 1 on.
        path: Steps from the module to the node that is replaced.
        kind: Of what sort the change is.
        before: The node's source.
        after: What stands there instead.
        node: The replacement.
    """

    number: int
    line: int
    path: tuple[Step, ...]
    kind: str
    before: str
    after: str
    node: ast.AST

    @property
    def name(self) -> str:
        """The change in one line; unlike line numbers it survives edits elsewhere in the file."""
        return f"{self.kind}: {_short(self.before)} -> {_short(self.after)}"

    def plant(self, source: str) -> ast.Module:
        """Make the change in a freshly parsed tree, ready to be compiled."""
        tree = ast.parse(source)
        if not self.path:
            return tree
        parent: ast.AST = tree
        for field, place in self.path[:-1]:
            parent = getattr(parent, field) if place is None else getattr(parent, field)[place]
        field, place = self.path[-1]
        node = copy.deepcopy(self.node)
        if place is None:
            setattr(parent, field, node)
        else:
            getattr(parent, field)[place] = node
        return ast.fix_missing_locations(tree)


UNCHANGED = Mutant(-1, 0, (), "control", "the file as it is", "the same", ast.Pass())


def mutants_of(source: str) -> list[Mutant]:
    """List all mutants of a file, in the order of its lines.

    Example:
        >>> for each in mutants_of("def f(x, y):\\n    return x * 2 if x < y else y"):
        ...     print(each.line, each.name)
        2 negated condition: x < y -> not x < y
        2 branch never taken: x < y -> False
        2 comparison: x < y -> x <= y
        2 comparison: x < y -> x > y
        2 arithmetic: x * 2 -> x / 2
        2 constant: 2 -> 3
        2 constant: 2 -> 1
    """
    tree = ast.parse(source)
    found = []
    for path, node in _maths(tree, ()):
        for kind, replacement in alternatives(node, path[-1][0]):
            stand_in = ast.fix_missing_locations(ast.copy_location(replacement, node))
            found.append(
                Mutant(len(found), node.lineno, path, kind, ast.unparse(node), ast.unparse(stand_in), stand_in)
            )
    return found


def runs_at_import(source: str, line: int) -> bool:
    """Tell whether a line lies outside of all bodies of functions: a table, a default, a field of a class.

    Example:
        >>> [runs_at_import("TABLE = 1\\ndef f(x=2):\\n    return x", line) for line in (1, 2, 3)]
        [True, True, False]
    """
    functions = [each for each in ast.walk(ast.parse(source)) if isinstance(each, (ast.FunctionDef, ast.Lambda))]
    bodies = [each.body if isinstance(each.body, list) else [each.body] for each in functions]
    return not any(body[0].lineno <= line <= (body[-1].end_lineno or line) for body in bodies)


def _maths(parent: ast.AST, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], ast.AST]]:
    """Walk over all nodes that compute something; fields come in the order in which Python declares them."""
    for field, value in ast.iter_fields(parent):
        if field in NOT_ENTERED or (isinstance(parent, ast.Subscript) and _is_typing(parent)):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _is_no_maths(child):
                step = (*path, (field, place))
                if hasattr(child, "lineno"):
                    yield step, child
                yield from _maths(child, step)


def _is_no_maths(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func) == "warnings.warn"
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(each, ast.Name) and each.id in DECLARATIONS for each in targets)
    return isinstance(node, NO_MATHS)


def _is_typing(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"Literal", "Callable", "tuple", "list", "dict"}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else text[:87] + "..."
