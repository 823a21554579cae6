"""What a node may be mistaken for."""

import ast
import copy
from collections.abc import Iterator

Change = tuple[str, ast.AST]

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_PAIRS = (
    "min max", "amin amax", "argmin argmax", "minimum maximum", "sum mean", "clamp_min clamp_max", "floor ceil",
    "any all", "zeros ones", "zeros_like ones_like", "sin cos", "rows columns", "height width", "append insert",
)  # fmt: skip
_TWINS = {one: other for pair in _PAIRS for one, other in (pair.split(), pair.split()[::-1])}
_TWINS |= {"cumsum": "cumprod", "prod": "sum", "exp": "expm1", "median": "mean", "sort": "argsort", "std": "var"}
# Calls that may be left out, as they give back something of the same shape.
_SAME_SHAPE = {
    "clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "abs", "abs_", "sqrt", "square", "round", "floor",
    "ceil", "relu", "exp", "log", "flip", "cumsum", "sigmoid", "softmax", "double", "float", "nan_to_num", "detach",
    "clone", "neg", "roll", "pow", "normalize", "mT", "transpose",
}  # fmt: skip
_ORDER_IS_NOTHING = {"maximum", "minimum", "max", "min", "cosine_similarity", "zip", "gcd", "hypot", "eq", "isclose"}
_FUNCTIONS = {"F", "torch", "math", "functional"}


def alternatives(node: ast.AST, field: str | None = None) -> Iterator[Change]:
    """List what may stand in a node's place, each with a word for the kind of change.

    ``field`` says what the node is to its parent; a ``test`` decides on a branch.

    Example:
        >>> [(kind, ast.unparse(other)) for kind, other in alternatives(ast.parse("a.sum(dim=1)", mode="eval").body)]
        [('function', 'a.mean(dim=1)')]
        >>> [ast.unparse(other) for _, other in alternatives(ast.parse("a <= b", mode="eval").body)]
        ['a < b', 'a >= b']
    """
    if field in ("test", "ifs"):
        yield "negated condition", ast.UnaryOp(ast.Not(), node)
        yield "branch never taken", ast.Constant(value=False)
    for kind, rule in _RULES:
        if isinstance(node, kind):
            yield from rule(node)


def _binary(node: ast.BinOp) -> Iterator[Change]:
    if isinstance(node.op, ast.MatMult):
        yield "swapped operands", ast.BinOp(node.right, node.op, node.left)
    elif not isinstance(node.left, (ast.Constant, ast.JoinedStr)) or not isinstance(node.left.value, str):
        yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node.op, (ast.Sub, ast.Div)):
        yield "swapped operands", ast.BinOp(node.right, node.op, node.left)


def _unary(node: ast.UnaryOp) -> Iterator[Change]:
    yield "sign or negation lost", node.operand


def _comparison(node: ast.Compare) -> Iterator[Change]:
    for place, operator in enumerate(node.ops):
        for other in _COMPARISON[type(operator)]:
            changed = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield "comparison", ast.Compare(node.left, changed, node.comparators)


def _boolean(node: ast.BoolOp) -> Iterator[Change]:
    yield "and/or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def _constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(value=not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value=value + 1)
        yield "constant", ast.Constant(value=value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(value=value + 1)
        yield "constant", ast.Constant(value=value * 0.9 if value else -1.0)


def _call(node: ast.Call) -> Iterator[Change]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _TWINS and name != "append":
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = _TWINS[name]
        else:
            changed.func = ast.Name(_TWINS[name], ast.Load())
        if not (isinstance(node.func, ast.Name) and _TWINS[name] == "mean"):
            yield "function", changed
    if name in _SAME_SHAPE and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id in _FUNCTIONS:
            if node.args and not isinstance(node.args[0], ast.Starred):
                yield "call left out", node.args[0]
        else:
            yield "call left out", owner
    yield from _arguments(node, name)


def _arguments(node: ast.Call, name: str) -> Iterator[Change]:
    plain = [not isinstance(each, (ast.Constant, ast.Starred)) for each in node.args]
    first = 1 if name == "where" else 0
    if plain[first : first + 2] == [True, True] and name not in _ORDER_IS_NOTHING | {
        "isinstance",
        "getattr",
        "partial",
    }:
        order = list(node.args)
        order[first], order[first + 1] = order[first + 1], order[first]
        yield "swapped arguments", ast.Call(node.func, order, node.keywords)
    if name == "range" and plain[-1:] == [True]:
        shorter = ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(value=1))
        yield "one step less", ast.Call(node.func, [*node.args[:-1], shorter], node.keywords)


def _statement(node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Yield, ast.YieldFrom)):
        return
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        # Leaving out the first assignment of a name only raises NameError; a second one may go unseen.
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        read = {each.id for each in ast.walk(node.value or target) if isinstance(each, ast.Name)}
        named = {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
        if isinstance(target, ast.Name) and not named & read:
            return
    yield "statement left out", ast.Pass()


_RULES = (
    (ast.BinOp, _binary),
    (ast.UnaryOp, _unary),
    (ast.Compare, _comparison),
    (ast.BoolOp, _boolean),
    (ast.Constant, _constant),
    (ast.Call, _call),
    ((ast.Expr, ast.AugAssign, ast.Assign), _statement),
)
