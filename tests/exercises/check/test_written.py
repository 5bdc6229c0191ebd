"""What is special about a module as an answer: how it is built, and the weights that are put into it."""

import pytest
import torch
from torch import nn

from transformer_lab.attention import MultiHeadAttention
from transformer_lab.exercises import attention as ex
from transformer_lab.exercises.check.written import _steps, _stub

EXERCISE = ex.MultiHead
Right = EXERCISE.solve


class OtherName(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.query = nn.Linear(d_model, d_model)

    def forward(self, x, context, mask):
        return self.query(x)


class NoBias(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)


class OneMore(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.scale = nn.Parameter(torch.ones(1))


class OneMoreBias(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.mix = nn.Linear(d_model, d_model)
        del self.mix.weight


class Narrow(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.v_proj = nn.Linear(d_model, d_model // n_heads)


class InAList(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.layers = [nn.Linear(d_model, d_model) for _ in range(4)]

    def forward(self, x, context, mask):
        return x


class MadeInForward(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()

    def forward(self, x, context, mask):
        return nn.Linear(x.shape[-1], x.shape[-1])(x)


class WeightsAtTheStart(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.first = self.q_proj.weight.detach().clone()

    def forward(self, x, context, mask):
        return x @ self.first


class WeightsChanged(Right):
    def forward(self, x, context, mask):
        self.q_proj.weight.data.zero_()
        return super().forward(x, context, mask)


class WeightsDetached(Right):
    def forward(self, x, context, mask):
        weight, bias = self.q_proj.weight.detach(), self.q_proj.bias
        q, k, v = x @ weight.T + bias, self.k_proj(context), self.v_proj(context)
        q, k, v = (ex.into_heads.solve(t, self.n_heads) for t in (q, k, v))
        return self.out_proj(ex.masked_attention.solve(q, k, v, mask).transpose(1, 2).flatten(2))


class Drops(Right):
    def forward(self, x, context, mask):
        return nn.functional.dropout(super().forward(x, context, mask), 0.5)


class EndlessStart(Right):
    def __init__(self, d_model, n_heads):
        while True:
            pass


class Stops(Right):
    def __init__(self, d_model, n_heads):
        raise ValueError("not today")


class AsksForMore(Right):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads)


class TakesLess(Right):
    def forward(self, x):
        return x


class NoInit(nn.Module):
    def forward(self, x, context, mask):
        return x


class NoSuper(Right):
    def __init__(self, d_model, n_heads):
        self.n_heads = n_heads


class NoSuperLayers(Right):
    def __init__(self, d_model, n_heads):
        self.q_proj = nn.Linear(d_model, d_model)


class Misspelt(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model))

    def foward(self, x, context, mask):
        return x


class OnlyInit(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model))

    def forward(self, x, context, mask): ...


class ContextFirst(Right):
    def forward(self, context, x, mask):
        return super().forward(x, context, mask)


class HeadsFirst(Right):
    def __init__(self, n_heads, d_model):
        super().__init__(d_model, n_heads)


class OfThePackage(MultiHeadAttention):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model=d_model, n_heads=n_heads)


class OfPyTorch(Right):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.inside = nn.MultiheadAttention(d_model, n_heads)


class QueriesOnTheRight(Right):
    def forward(self, x, context, mask):
        q, k = self.q_proj(x), self.k_proj(context)
        return (k @ q.mT)[:, None].masked_fill(~mask, -torch.inf)


class GivesWeightsToo(Right):
    def forward(self, x, context, mask):
        return super().forward(x, context, mask), mask


WRONG = {
    "an instance": (Right(4, 2), "Hand in the class itself, `check(MultiHead)`, without calling it"),
    "a function": (lambda x, context, mask: x, "a subclass of `nn.Module`; this is a function"),
    "another class": (dict, "a subclass of `nn.Module`; this is a type"),
    "nothing": (None, "a subclass of `nn.Module`; this is a NoneType"),
    "another name": (
        OtherName,
        "Is it made in `__init__`, as an attribute of `self`? Your module has: query.weight",
    ),
    "a bias too few": (NoBias, "no parameter `k_proj.bias` in your module"),
    "a parameter too many": (OneMore, "a parameter too many, `scale`."),
    "a bias too many": (OneMoreBias, "a parameter too many, `mix.bias`. `bias=False` makes"),
    "another shape": (Narrow, "`v_proj.weight` has the shape (2, 4); here it should be (4, 4)."),
    "layers in a list": (InAList, "Your module has: none."),
    "layers made in forward": (MadeInForward, "You have written `forward`; `__init__` still to come"),
    "only __init__": (OnlyInit, "You have written `__init__`; `forward` still to come"),
    "arguments in another order": (ContextFirst, "called with (x, context, mask), and yours takes (context"),
    "settings in another order": (HeadsFirst, "called with (d_model, n_heads), and yours takes (n_heads"),
    "an heir of the package's": (OfThePackage, "Here you build what `MultiHeadAttention` does"),
    "the package's": (MultiHeadAttention, "Here you build what `MultiHeadAttention` does"),
    "PyTorch's inside": (OfPyTorch, "Here you build what `MultiheadAttention` does"),
    "weights read too early": (WeightsAtTheStart, "the first difference is at"),
    "weights changed": (WeightsChanged, "changed its input `q_proj.weight` in place"),
    "weights detached": (WeightsDetached, "no gradient reaches `q_proj.weight`"),
    "dropout": (Drops, "drew random numbers"),
    "a start that never ends": (EndlessStart, "so I stopped it"),
    "a start that raises": (Stops, "Your code raised ValueError: not today. It happened in line"),
    "a start that asks for more": (AsksForMore, "missing 1 required positional argument: 'dropout'"),
    "a forward that takes less": (TakesLess, "takes 2 positional arguments but 4 were given"),
    "no __init__": (NoInit, "I make your module with `MultiHead(d_model, n_heads)`: is `__init__` there"),
    "no super": (NoSuper, "`__init__` should begin with `super().__init__()`"),
    "layers before super": (NoSuperLayers, "`__init__` should begin with `super().__init__()`"),
    "forward misspelt": (Misspelt, "Your class has no `forward`: is it there, and spelt so?"),
    "queries on the right": (QueriesOnTheRight, "queries stand on the left. Your code raised"),
    "two results": (GivesWeightsToo, "Return one tensor; this is a tuple of 2"),
}


@pytest.mark.parametrize(("answer", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_module_is_told_why(answer, says):
    before = torch.get_rng_state(), torch.get_default_dtype()
    result = EXERCISE.check(answer, seconds=2)
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_default_dtype() == before[1]
    assert result.status == "not yet" and says in result.message, result
    torch.rand(1)  # whatever the notebook has drawn, the answer is the same
    assert "Traceback" not in repr(result) and repr(result) == repr(EXERCISE.check(answer, seconds=2))


class Seeds(Right):
    def __init__(self, d_model, n_heads):
        torch.manual_seed(1)
        super().__init__(d_model, n_heads)


class KeepsATable(Right):
    """Its table is as exact as the weights, in float64 too."""

    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.register_buffer("third", torch.tensor([1 / 3]))

    def forward(self, x, context, mask):
        return super().forward(x, context, mask) * self.third * 3


class KeepsItsWeights(Right):
    def forward(self, x, context, mask):
        self.seen = mask
        return super().forward(x, context, mask)


@pytest.mark.parametrize("answer", [Seeds, KeepsATable, KeepsItsWeights])
def test_a_module_may_do_what_modules_do(answer):
    result = EXERCISE.check(answer)
    assert result and "remark" not in result.message, result


def test_the_stub_has_the_first_lines_of_each_method():
    assert EXERCISE.stub.splitlines() == [
        "class MultiHead(nn.Module):",
        f'    """{Right.__doc__}"""',
        "",
        "    def __init__(self, d_model, n_heads):",
        "        super().__init__()",
        "        ...",
        "",
        "    def forward(self, x, context, mask):",
        f'        """{Right.forward.__doc__}"""',
        "        ...",
    ]


def test_a_stub_without_a_docstring_holds_the_dots_alone():
    assert (
        _stub("def f(x):\n    # a comment\n    y = x\n    return y") == "def f(x):\n    # a comment\n    ..."
    )


BROKEN = pytest.mark.parametrize("exercise", [ex.find_the_fault, ex.CausalAttention], ids=lambda e: e.name)


def handed_in(exercise, text):
    names = {"torch": torch, "nn": nn}
    exec(text, names)
    return exercise.check(names[exercise.name]).status


@BROKEN
@pytest.mark.parametrize("import_line", ["import torch", ""])
def test_broken_code_is_untouched_wherever_it_stands(exercise, import_line):
    """Python compiles a call of torch in another way in the file that imports torch."""
    assert handed_in(exercise, f"{import_line}\n{exercise.stub}") == "not attempted"


@BROKEN
@pytest.mark.parametrize(
    ("old", "new"), [("@ v", "* v"), ("** 0.5", "** 0.6"), ("-2, -1", "-1, -3"), ("dim=-1", "dim=-2")]
)
def test_broken_code_with_one_thing_changed_is_an_attempt(exercise, old, new):
    assert handed_in(exercise, exercise.stub.replace(old, new)) == "not yet"


def test_a_broken_module_whose_layers_were_changed_is_an_attempt():
    stub = ex.CausalAttention.stub
    assert handed_in(ex.CausalAttention, stub.replace("self.k_proj = nn", "self.key = nn")) == "not yet"


def test_right_arguments_under_swapped_names_pass():
    """The order is only mentioned where something is wrong."""
    assert ex.weighted_average.check(lambda values, weights: values @ weights)
    message = ex.weighted_average.check(lambda values, weights: weights @ values).message
    assert "is called with (weights, values), and yours takes (values, weights): keep the order." in message


def test_the_stub_of_a_broken_module_is_the_module():
    assert ex.CausalAttention.stub.startswith('class CausalAttention(nn.Module):\n    """Attention in which')
    assert "tril(diagonal=1)" in ex.CausalAttention.stub
    assert "tril()" in repr(ex.CausalAttention.solution())


def test_steps_look_into_inner_functions():
    def one(x):
        return [y + 1 for y in x]

    def other(x):
        return [y + 2 for y in x]

    assert _steps(one.__code__) == _steps(one.__code__) != _steps(other.__code__)
