"""The exercises of "Residuals and norms": other right answers, and what checks say beyond the contract."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab import norms
from transformer_lab.exercises import norms as ex

# --- right answers in other words ----------------------------------------------------------------------


def layer_norm_by_loops(x, weight, bias, eps):
    rows = []
    for token in x.flatten(0, 1):
        mean = sum(token) / len(token)
        variance = sum((entry - mean) ** 2 for entry in token) / len(token)
        rows.append((token - mean) / (variance + eps) ** 0.5 * weight + bias)
    return torch.stack(rows).unflatten(0, x.shape[:2])


def layer_norm_by_var(x, weight, bias, eps):
    mean = x.mean(2)[..., None]
    return weight * (x - mean) * torch.rsqrt(x.var(2, correction=0)[..., None] + eps) + bias


def layer_norm_by_einsum(x, weight, bias, eps):
    centred = x - torch.einsum("btd->bt", x)[..., None] / x.shape[-1]
    squares = torch.einsum("btd,btd->bt", centred, centred)[..., None] / x.shape[-1]
    return torch.addcmul(bias, centred / (squares + eps).sqrt(), weight)


def rms_norm_by_loops(x, weight, eps):
    rows = [token * (sum(token * token) / len(token) + eps) ** -0.5 for token in x.flatten(0, 1)]
    return torch.stack(rows).reshape(x.shape) * weight


def rms_norm_by_length(x, weight, eps):
    width = x.shape[-1]
    long = x * x
    return x * weight * width**0.5 / (long.sum(-1, keepdim=True) + width * eps).sqrt()


def pre_norm_by_the_package(x, w):
    residual = norms.Residual(x.shape[-1]).to(x.dtype)
    return residual(x, lambda h: (h @ w).relu())


def pre_norm_by_hand(x, w):
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return torch.clamp(torch.einsum("btd,de->bte", h, w), min=0) + x


def repaired_by_the_library(x, weights, w):
    return x + torch.einsum("ts,bsd,de->bte", weights, F.layer_norm(x, x.shape[-1:]), w)


def repaired_token_by_token(x, weights, w):
    h = torch.stack([F.layer_norm(x[:, t], (x.shape[2],)) for t in range(x.shape[1])], dim=1)
    return x + torch.stack([(row[:, None] * h).sum(1) @ w for row in weights], dim=1)


class Layers(nn.Module):
    """The three layers, made in another order."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down_proj = nn.Linear(hidden, width)
        self.up_proj = nn.Linear(width, hidden)


class StepByStep(Layers):
    def forward(self, x):
        out = self.up_proj(x)
        out = self.down_proj(torch.where(out > 0, out, 0.0))
        return F.layer_norm(out + x, x.shape[-1:], self.norm.weight, self.norm.bias)


class ByTheFormula(Layers):
    def forward(self, x):
        y = x + F.linear(F.relu(self.up_proj(x)), self.down_proj.weight, self.down_proj.bias)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * self.norm.weight + self.norm.bias


def schedule_in_two_pieces(steps, d_model, warmup):
    peak = 1 / math.sqrt(d_model * warmup)
    return torch.where(steps < warmup, peak * steps / warmup, peak * (warmup / steps).sqrt())


def schedule_by_a_loop(steps, d_model, warmup):
    return torch.tensor([d_model**-0.5 * min(s**-0.5, s * warmup**-1.5) for s in steps.tolist()])


def backward_by_projection(x, upstream, eps):
    square = x.square().mean(-1, keepdim=True) + eps
    inner = torch.einsum("btd,btd->bt", upstream, x)[..., None] / x.shape[-1]
    return upstream * square.rsqrt() - x * inner * square**-1.5


def backward_by_the_table(x, upstream, eps):
    out = torch.zeros_like(x)
    for b, t in np.ndindex(tuple(x.shape[:2])):
        token, width = x[b, t], x.shape[-1]
        r = (token @ token / width + eps).sqrt()
        table = torch.eye(width, dtype=x.dtype) / r - torch.outer(token, token) / (width * r**3)
        out[b, t] = table @ upstream[b, t]
    return out


RIGHT = {
    "layer_norm": [layer_norm_by_loops, layer_norm_by_var, layer_norm_by_einsum],
    "rms_norm": [rms_norm_by_loops, rms_norm_by_length],
    "pre_norm": [pre_norm_by_the_package, pre_norm_by_hand],
    "find_the_leak": [repaired_by_the_library, repaired_token_by_token],
    "PostNormFeedForward": [StepByStep, ByTheFormula],
    "warm_up": [schedule_in_two_pieces, schedule_by_a_loop],
    "rms_norm_backward": [backward_by_projection, backward_by_the_table],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {
    "pre_norm": {"h = torch.nn.functional.layer_norm(x, w.shape[-1:])": "w is as wide as x"},
    "warm_up": {
        "return torch.minimum(rising, falling) / d_model ** 0.5": "the smaller one, whichever comes first",
    },
}


def test_the_chapter_has_twelve_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 12 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package and with PyTorch --------------------------------------------


def test_the_reference_of_layer_norm_agrees_with_pytorch():
    for case in ex.layer_norm.cases():
        x, weight, bias, eps = case.tensors()
        ours = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_rms_norm_agrees_with_the_package():
    for case in ex.rms_norm.cases():
        x, weight, eps = case.tensors()
        norm = norms.RMSNorm(x.shape[-1], eps=eps)
        ours = torch.func.functional_call(norm, {"weight": weight}, (x,))
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_gradient_agrees_with_autograd():
    for case in ex.rms_norm_backward.cases():
        x, upstream, eps = case.tensors()
        y = norms.RMSNorm(x.shape[-1], eps=eps).to(x.dtype)(x.requires_grad_())
        (gradient,) = torch.autograd.grad(y, x, upstream)
        assert np.allclose(gradient.double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_2017_sub_layer_agrees_with_the_package():
    for case in ex.PostNormFeedForward.cases():
        given = dict(zip(case.inputs, case.tensors(), strict=True))
        model = ex.PostNormFeedForward.solve(given.pop("d_model"), given.pop("d_ff"))
        x = given.pop("x")
        model = model.to(x.dtype)
        model.load_state_dict(given)
        residual = norms.Residual(x.shape[-1], placement="post").to(x.dtype)
        residual.norm.load_state_dict(model.norm.state_dict())
        ours = residual(x, nn.Sequential(model.up_proj, nn.ReLU(), model.down_proj))
        assert np.allclose(ours.detach().double().numpy(), case.want, atol=1e-5)


def test_the_peak_of_the_2017_schedule_is_where_the_warm_up_ends():
    """d_model = 512 and 4000 steps of warm-up, as in the paper: a peak of 1 / sqrt(512 * 4000) = 0.0007."""
    rates = ex.warm_up.solve(torch.arange(1.0, 20_000), 512, 4000)
    assert rates.argmax() == 3999 and rates.max().item() == pytest.approx(0.000699, abs=1e-6)


def by_autograd(x, upstream, eps):
    x = x.detach().requires_grad_()
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return torch.autograd.grad(y, x, upstream)[0]


def by_backward(x, upstream, eps):
    x = x.detach().requires_grad_()
    (x / (x.square().mean(-1, keepdim=True) + eps).sqrt()).backward(upstream)
    return x.grad


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.layer_norm, lambda x, weight, bias, eps: F.layer_norm(x, x.shape[-1:], weight, bias, eps)),
        (ex.layer_norm, lambda x, w, b, eps: nn.LayerNorm(x.shape[-1], eps, dtype=x.dtype)(x) * w + b),
        (ex.rms_norm, lambda x, weight, eps: F.rms_norm(x, x.shape[-1:], weight, eps)),
        (ex.rms_norm_backward, by_autograd),
        (ex.rms_norm_backward, by_backward),
    ],
)
def test_who_calls_what_is_to_be_written_is_told_so(exercise, answer):
    result = exercise.check(answer)
    assert result.status == "not yet" and "is off limits in this exercise" in result.message, result


# --- measurements --------------------------------------------------------------------------------------


def as_it_is(x):
    return x


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:])


def rms_norm(x):
    return F.rms_norm(x, x.shape[-1:])


def diversity(
    skip,
    seed,
    *,
    layers=4,
    n_tokens=32,
    width=64,
    dim=-1,
    tokens=torch.randn,
    scores=torch.randn,
    before=as_it_is,
    after=as_it_is,
    at_the_end=as_it_is,
):
    random = torch.Generator().manual_seed(seed)
    x = tokens(1000, n_tokens, width, generator=random) * torch.rand(1000, n_tokens, 1, generator=random)
    for _ in range(layers):
        weights = scores(1000, n_tokens, n_tokens, generator=random).softmax(dim)
        x = after((x if skip else 0) + weights @ before(x))
    return norms.token_diversity(at_the_end(x))


def second_stack(seed, starts_where_the_first_ended):
    """The diversity with skip connection, of a stack that gets its tokens from the wrong place."""
    random = torch.Generator().manual_seed(seed)

    def weights():
        return torch.randn(1000, 32, 32, generator=random).softmax(-1)

    x = torch.randn(1000, 32, 64, generator=random) * torch.rand(1000, 32, 1, generator=random)
    first = x
    for _ in range(4 if starts_where_the_first_ended else 0):
        x = weights() @ x
    for _ in range(4):
        x = (x if starts_where_the_first_ended else first) + weights() @ x
    return norms.token_diversity(x).mean()


@pytest.mark.parametrize("seed", range(20))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.kept_apart.check([diversity(skip, seed).mean() for skip in (False, True)])


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        ("after three layers", {"layers": 3}),
        ("after five layers", {"layers": 5}),
        ("Your softmax runs down the columns", {"dim": -2}),
        ("have changed places", {"n_tokens": 64, "width": 32}),
        ("Your weights are too even", {"scores": torch.rand}),
        ("Your tokens have much in common", {"tokens": torch.rand}),
        *(("go through a norm in each layer", {"after": norm}) for norm in (layer_norm, rms_norm)),
        *(("go through a norm in each layer", {"before": norm}) for norm in (layer_norm, rms_norm)),
        *(("go through a norm at the end", {"at_the_end": norm}) for norm in (layer_norm, rms_norm)),
    ],
)
def test_each_wrong_measurement_is_told_why(says, settings):
    for seed in range(5):
        answer = [diversity(skip, seed, **settings).mean() for skip in (False, True)]
        assert says in ex.kept_apart.check(answer).message


@pytest.mark.parametrize(
    ("says", "starts_where_the_first_ended"),
    [("that the first stack had left", True), ("the random tokens of the beginning", False)],
)
def test_a_second_stack_with_the_wrong_tokens_is_told_why(says, starts_where_the_first_ended):
    for seed in range(5):
        answer = diversity(False, seed).mean(), second_stack(seed, starts_where_the_first_ended)
        assert says in ex.kept_apart.check(answer).message


@pytest.mark.parametrize("where", ["before", "after", "at_the_end"])
def test_a_norm_in_the_second_stack_alone_is_told_too(where):
    for seed in range(5):
        answer = diversity(False, seed).mean(), diversity(True, seed, **{where: rms_norm}).mean()
        assert "go through a norm" in ex.kept_apart.check(answer).message


def test_a_norm_in_the_first_stack_alone_is_told_too():
    for seed in range(5):
        answer = diversity(False, seed, after=rms_norm).mean(), diversity(True, seed).mean()
        message = ex.kept_apart.check(answer).message
        assert "The first number is too small. Either the tokens go through a norm" in message


def test_averages_that_are_none_are_told_so():
    """Without a softmax the tokens mix, and keep their differences."""
    assert "Were averages taken" in ex.kept_apart.check((0.984, 0.984)).message


def test_other_wrong_measurements_are_told_why():
    without, kept = diversity(False, 0), diversity(True, 0)
    told = ex.kept_apart.check
    assert "the other way round" in told((kept.mean(), without.mean())).message
    assert "These are squares" in told((without.square().mean(), kept.square().mean())).message
    assert "a share" in told((0.08, 48.2)).message
    assert "Not in the range" in told((0.1, 0.2)).message
