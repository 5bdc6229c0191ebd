"""A solution spoiled at one place at a time: a checker is as good as the wrong answers it refuses.

What spoils nothing is not tried: the axes of a transpose in the other order, a minus before an axis (it then
counts from the other end), infinity times two, another tensor's device, the sides of `&` or `|` in the other
order, a gradient cut off where none is asked for.
"""

import ast
import copy
import itertools
from collections.abc import Iterator

from transformer_lab.exercises.check import source

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult, ast.FloorDiv)
LOGICAL = (ast.BitAnd, ast.BitOr, ast.BitXor)
OTHER_CALLS = {
    "softmax": ("sigmoid", "log_softmax", "relu"),
    "transpose": ("flip",),
    "tril": ("triu",),
    "exp": ("exp2", "expm1"),
    "amax": ("amin", "mean"),
}


def mutants(exercise) -> Iterator[str]:
    """Distinct spoiled versions of the solution's source."""
    tree = FoldSigns().visit(ast.parse(source(exercise.solve)))
    names = sorted({name for function in functions(tree) for name in names_of(function)})
    bodies = {id(node) for f in functions(tree) for line in f.body for node in ast.walk(line)}
    devices = {id(node.value) for node in ast.walk(tree) if getattr(node, "attr", "") == "device"}
    seen = {ast.unparse(tree)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) not in bodies - devices:
            continue
        for choice in replacements(node, names, exercise.gradient):
            if (text := ast.unparse(spoil(tree, index, choice))) not in seen:
                seen.add(text)
                yield text
    for which, function in enumerate(functions(tree)):
        for number, line in enumerate(function.body):
            if not (is_docstring(line) or isinstance(line, ast.Return)):  # a step left out
                spoiled = copy.deepcopy(tree)
                del functions(spoiled)[which].body[number]
                yield ast.unparse(spoiled)


def is_docstring(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def names_of(function: ast.FunctionDef) -> set[str]:
    stored = (n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return {name.id for name in stored} | {a.arg for a in function.args.args}


def replacements(node: ast.AST, names: list[str], gradient: bool) -> Iterator[ast.AST]:
    """Every way in which one node can be spoiled."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (ast.Name(name, ast.Load()) for name in names if name != node.id)
    if isinstance(node, ast.BinOp):
        logical = isinstance(node.op, LOGICAL)
        for operator in LOGICAL if logical else OPERATORS:
            if not isinstance(node.op, operator):
                yield ast.BinOp(node.left, operator(), node.right)
        yield from (node.left, node.right)
        if not logical:
            yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        negative = {-node.value} if isinstance(node.value, float) else set()
        for value in {node.value + 1, node.value - 1, node.value * 2, 0, 1, *negative} - {node.value}:
            yield ast.Constant(value)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield node.func.value  # the call left out
        for name in OTHER_CALLS.get(node.func.attr, ()):
            yield ast.Call(ast.Attribute(node.func.value, name, ast.Load()), node.args, node.keywords)
        if len(node.args) == 2 and node.func.attr != "transpose":
            yield ast.Call(node.func, node.args[::-1], node.keywords)
    if isinstance(node, ast.BinOp | ast.Call) and not is_infinity(node):
        # the sign turned, a factor too many, the gradient cut off
        yield ast.UnaryOp(ast.USub(), node)
        yield ast.BinOp(ast.Constant(2), ast.Mult(), node)
        if gradient:
            yield ast.Call(ast.Attribute(node, "detach", ast.Load()), [], [])
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for order in itertools.permutations(node.elts):
            if order != tuple(node.elts):
                yield ast.Tuple(list(order), ast.Load())


def is_infinity(node: ast.AST) -> bool:
    return ast.unparse(node).startswith("float(")


class FoldSigns(ast.NodeTransformer):
    """Makes -1 one number; Python's grammar reads a minus and a 1."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return ast.Constant(-node.operand.value)
        return self.generic_visit(node)


def spoil(tree: ast.AST, index: int, choice: ast.AST) -> ast.AST:
    """A copy of ``tree`` in which the node at ``index`` (in walking order) is replaced."""
    spoiled = copy.deepcopy(tree)
    old = list(ast.walk(spoiled))[index]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return copy.deepcopy(choice) if node is old else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(spoiled))


def changed_line(exercise, text: str) -> str:
    """The line of a mutant that differs from the solution, or the one that is missing from it."""
    before, after = ast.unparse(ast.parse(source(exercise.solve))).splitlines(), text.splitlines()
    lines = zip(before, [*after, ""] if len(after) < len(before) else after, strict=True)
    changed = next((a.strip(), b.strip()) for a, b in lines if a != b)
    return changed[1] if len(before) == len(after) else f"without {changed[0]}"
