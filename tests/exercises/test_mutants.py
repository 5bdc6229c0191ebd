"""A checker is as good as the wrong answers it refuses: every solution, spoiled at one place at a time.

Each mutant changes one operator, number, name, axis or call of a solution; the exercise must refuse it.
The few that pass are listed in ``EQUIVALENT`` with the reason, and the list must be exact.
"""

import ast
import copy
import itertools

import pytest
import torch

from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check import source

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult, ast.FloorDiv)
OTHER_CALLS = {"softmax": ("sigmoid", "log_softmax", "relu"), "transpose": ("flip",)}

SAME_AXES = "the same two axes, in the other order or counted from the other end"
SAME_WIDTH = "queries, keys and values are equally wide"

# The mutants that pass: each computes what the solution computes, for the reason given.
SPLIT = "q, k, v = (t.unflatten(-1, (n_heads, -1)).transpose({}) for t in (q, k, v))"
EQUIVALENT = {
    "weighted_average": {},
    "scaled_dot_product": {
        "scores = q @ k.transpose(-1, -2)": SAME_AXES,
        "scores = q @ k.transpose(2, -1)": SAME_AXES,
        "scores = scores / k.shape[-1] ** 0.5": SAME_WIDTH,
        "scores = scores / v.shape[-1] ** 0.5": SAME_WIDTH,
    },
    "masked_attention": {
        "scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5": SAME_AXES,
        "scores = q @ k.transpose(2, -1) / q.shape[-1] ** 0.5": SAME_AXES,
        "scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5": SAME_WIDTH,
        "scores = q @ k.transpose(-2, -1) / v.shape[-1] ** 0.5": SAME_WIDTH,
    },
    "into_heads": {
        "return x.transpose(2, 1)": SAME_AXES,
        "return x.transpose(1, -2)": SAME_AXES,
    },
    "find_the_fault": {
        SPLIT.format("2, 1"): SAME_AXES,
        SPLIT.format("1, -2"): SAME_AXES,
        "scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5": SAME_AXES,
        "scores = q @ k.transpose(2, -1) / q.shape[-1] ** 0.5": SAME_AXES,
        "scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5": SAME_WIDTH,
        "scores = q @ k.transpose(-2, -1) / v.shape[-1] ** 0.5": SAME_WIDTH,
        "return heads.transpose(2, 1).flatten(2) @ w_o": SAME_AXES,
        "return heads.transpose(1, -2).flatten(2) @ w_o": SAME_AXES,
        "return heads.transpose(1, 2).flatten(-2) @ w_o": "of four axes, -2 is 2",
    },
}


def replacements(node):
    """Every way in which one node can be spoiled."""
    if isinstance(node, ast.BinOp):
        for operator in OPERATORS:
            if not isinstance(node.op, operator):
                yield ast.BinOp(node.left, operator(), node.right)
        yield from (node.left, node.right, ast.BinOp(node.right, node.op, node.left))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for value in (node.value + 1, node.value - 1, node.value * 2, -node.value, 0, 1):
            if value != node.value:
                yield ast.Constant(value)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield node.func.value  # the call left out
        for name in OTHER_CALLS.get(node.func.attr, ()):
            yield ast.Call(ast.Attribute(node.func.value, name, ast.Load()), node.args, node.keywords)
        if len(node.args) == 2:
            yield ast.Call(node.func, node.args[::-1], node.keywords)
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for order in itertools.permutations(node.elts):
            if order != tuple(node.elts):
                yield ast.Tuple(list(order), ast.Load())


class FoldSigns(ast.NodeTransformer):
    """Makes -1 one number; Python's grammar reads a minus and a 1."""

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return ast.Constant(-node.operand.value)
        return self.generic_visit(node)


def mutants(exercise):
    """Distinct spoiled versions of the solution's source."""
    tree = FoldSigns().visit(ast.parse(source(exercise.solve)))
    function = tree.body[0]
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names = sorted(stored | {a.arg for a in function.args.args})
    seen = {ast.unparse(tree)}
    for index, node in enumerate(ast.walk(tree)):
        choices = list(replacements(node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            choices += [ast.Name(name, ast.Load()) for name in names if name != node.id]
        for choice in choices:
            text = ast.unparse(spoil(tree, index, choice))
            if text not in seen:
                seen.add(text)
                yield text
    for number in range(1, len(function.body) - 1):  # a step left out
        spoiled = copy.deepcopy(tree)
        del spoiled.body[0].body[number]
        yield ast.unparse(spoiled)


def spoil(tree, index, choice):
    """A copy of ``tree`` in which the node at ``index`` (in walking order) is replaced."""
    spoiled = copy.deepcopy(tree)
    old = list(ast.walk(spoiled))[index]

    class Replace(ast.NodeTransformer):
        def visit(self, node):
            return copy.deepcopy(choice) if node is old else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(spoiled))


def changed_line(exercise, text):
    """The line of a mutant that differs from the solution, or the one that is missing from it."""
    before, after = ast.unparse(ast.parse(source(exercise.solve))).splitlines(), text.splitlines()
    lines = zip(before, [*after, ""] if len(after) < len(before) else after, strict=True)
    changed = next((a.strip(), b.strip()) for a, b in lines if a != b)
    return changed[1] if len(before) == len(after) else f"without {changed[0]}"


def survivors(exercise):
    total, passed = 0, []
    for text in mutants(exercise):
        names = {"torch": torch}
        exec(text, names)
        total += 1
        if exercise.check(names[exercise.name], seconds=5):
            passed.append(changed_line(exercise, text))
    return total, passed


WRITTEN = [e for e in ex.chapter.exercises.values() if e.kind in ("implement", "debug")]


@pytest.mark.parametrize("exercise", WRITTEN, ids=lambda e: e.name)
def test_mutants_are_refused(exercise):
    total, passed = survivors(exercise)
    assert total > 10
    assert sorted(passed) == sorted(EQUIVALENT[exercise.name])
