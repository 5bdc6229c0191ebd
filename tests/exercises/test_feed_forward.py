"""The exercises of "Feed-forward networks": other right answers, and what the checks say of wrong ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab.exercises import feed_forward as ex
from transformer_lab.exercises.check import source
from transformer_lab.feed_forward import FeedForward, MixtureOfExperts, SwiGLU, gated_width

# --- right answers in other words ----------------------------------------------------------------------


def network_unit_by_unit(x, w_up, b_up, w_down, b_down):
    out = b_down.expand(x.shape)
    for unit in range(len(b_up)):
        answer = torch.clamp(x @ w_up[:, unit] + b_up[unit], min=0)
        out = out + answer[..., None] * w_down[unit]
    return out


def network_by_einsum(x, w_up, b_up, w_down, b_down):
    hidden = torch.einsum("btd,df->btf", x, w_up) + b_up
    return torch.einsum("btf,fd->btd", torch.where(hidden > 0, hidden, 0), w_down) + b_down


def in_two_dimensions(x, up_weight, up_bias, down_weight, down_bias):
    x = x.movedim(-1, 1)[..., None]  # (B, D, T, 1)
    hidden = F.relu(F.conv2d(x, up_weight[:, :, None, None], up_bias))
    return F.conv2d(hidden, down_weight[:, :, None, None], down_bias).squeeze(-1).permute(0, 2, 1)


def by_transposed_convolutions(x, up_weight, up_bias, down_weight, down_bias):
    hidden = F.conv_transpose1d(x.mT, up_weight.T.unsqueeze(-1), up_bias).clamp(min=0)
    return F.conv_transpose1d(hidden, down_weight.T.unsqueeze(-1), down_bias).mT


class Layers(nn.Module):
    """The layers of `TwoLayers`, made in another order."""

    def __init__(self, width, hidden):
        super().__init__()
        self.down_proj, self.up_proj = nn.Linear(hidden, width), nn.Linear(width, hidden)


class RepairedInPlace(Layers):
    def forward(self, x):
        hidden = self.up_proj(x)
        torch.relu_(hidden)
        return self.down_proj(hidden)


class RepairedByTheLibrary(Layers):
    def forward(self, x):
        return self.down_proj(F.relu(self.up_proj(x)))


class RepairedByMaximum(Layers):
    def forward(self, x):
        hidden = self.up_proj(x)
        return self.down_proj(torch.maximum(hidden, torch.zeros_like(hidden)))


def gelu_of_the_distribution(x):
    return x * torch.distributions.Normal(0.0, 1.0).cdf(x)


def gelu_by_the_other_side(x):
    return x * torch.erfc(-x * math.sqrt(0.5)) / 2


def swiglu_unit_by_unit(x, w_gate, w_up, w_down):
    units = zip(w_gate.T, w_up.T, w_down, strict=True)
    return sum((F.silu(x @ gate) * (x @ up))[..., None] * down for gate, up, down in units)


def swiglu_by_linear(x, w_gate, w_up, w_down):
    gate = F.linear(x, w_gate.T)
    return F.linear(gate / (1 + torch.exp(-gate)) * F.linear(x, w_up.T), w_down.T)


def route_by_hiding(scores, top_k):
    least = scores.topk(top_k).values[..., -1:]
    return scores.masked_fill(scores < least, -torch.inf).softmax(-1)


def route_by_renormalising(scores, top_k):
    weights = scores.softmax(-1)
    best, chosen = weights.topk(top_k)
    return torch.zeros_like(scores).scatter(-1, chosen, best / best.sum(-1, keepdim=True))


def route_token_by_token(scores, top_k):
    out = torch.zeros_like(scores)
    for b, sentence in enumerate(scores):
        for t, row in enumerate(sentence):
            chosen = row.argsort(descending=True)[:top_k]
            out[b, t, chosen] = row[chosen].softmax(0)
    return out


def balance_layer_by_layer(scores, top_k):
    losses = []
    for layer in scores:
        counts = torch.bincount(layer.topk(top_k).indices.flatten(), minlength=layer.shape[1])
        shares = counts / (len(layer) * top_k)
        losses.append(layer.shape[1] * (shares.to(layer.dtype) @ layer.softmax(-1).mean(0)))
    return torch.stack(losses)


def balance_by_the_choice(scores, top_k):
    chosen = (scores >= scores.topk(top_k).values[..., -1:]).to(scores.dtype).mean(1) / top_k
    return scores.shape[-1] * torch.einsum("le,le->l", chosen, torch.softmax(scores, 2).mean(1))


class Parts(nn.Module):
    """The parts of `Experts`, made in another way."""

    def __init__(self, width, hidden, count, chosen):
        super().__init__()
        self.chosen = chosen
        experts = [nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))]
        experts += [
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
            for _ in range(count - 1)
        ]
        self.experts = nn.ModuleList(experts)
        self.router = nn.Linear(width, count, bias=False)


class ExpertsByRoute(Parts):
    def forward(self, x):
        shares = route_by_hiding(self.router(x), self.chosen)
        return sum(shares[..., e : e + 1] * expert(x) for e, expert in enumerate(self.experts))


class ExpertsOnTheirTokens(Parts):
    def forward(self, x):
        rows = x.flatten(0, 1)
        best, chosen = self.router(rows).topk(self.chosen)
        weights, out = best.softmax(-1), torch.zeros_like(rows)
        for e, expert in enumerate(self.experts):
            token, place = torch.where(chosen == e)
            out = out.index_add(0, token, weights[token, place, None] * expert(rows[token]))
        return out.view_as(x)


class ExpertsTokenByToken(Parts):
    def forward(self, x):
        rows = []
        for row in x.flatten(0, 1):
            best, chosen = self.router(row).topk(self.chosen)
            answers = torch.stack([self.experts[e](row) for e in chosen.tolist()])
            rows.append(best.softmax(0) @ answers)
        return torch.stack(rows).view_as(x)


RIGHT = {
    "feed_forward": [
        network_unit_by_unit,
        network_by_einsum,
        lambda x, w_up, b_up, w_down, b_down: F.linear(F.relu(F.linear(x, w_up.T, b_up)), w_down.T, b_down),
    ],
    "as_convolutions": [in_two_dimensions, by_transposed_convolutions],
    "TwoLayers": [RepairedInPlace, RepairedByTheLibrary, RepairedByMaximum],
    "gelu": [gelu_of_the_distribution, gelu_by_the_other_side],
    "swiglu": [swiglu_unit_by_unit, swiglu_by_linear],
    "route": [route_by_hiding, route_by_renormalising, route_token_by_token],
    "balance_loss": [balance_layer_by_layer, balance_by_the_choice],
    "Experts": [ExpertsByRoute, ExpertsOnTheirTokens, ExpertsTokenByToken],
}

ZEROS = "zeros stay zeros, and have no gradient"
CHOSEN = "a choice has no gradient"
ONE_HOT = "shares = nn.functional.one_hot(choices, n_experts)"

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {
    "route": {
        f"return {zeros}.scatter(-1, chosen, weights)": ZEROS
        for zeros in (
            "(-torch.zeros_like(scores))",
            "(2 * torch.zeros_like(scores))",
            "torch.zeros_like(scores).detach()",
        )
    },
    "balance_loss": {
        "choices = scores.topk(top_k, dim=-1).indices.flatten(1).detach()": CHOSEN,
        f"{ONE_HOT}.detach().to(scores.dtype).mean(dim=1)": CHOSEN,
        f"{ONE_HOT}.to(scores.dtype).detach().mean(dim=1)": CHOSEN,
        f"{ONE_HOT}.to(scores.dtype).mean(dim=1).detach()": CHOSEN,
        f"{ONE_HOT}.to(probabilities.dtype).mean(dim=1)": "probabilities have the type of the scores",
        "return n_experts * (shares * probabilities).sum(dim=1)": "of two axes, 1 is the last",
    },
}


def test_the_chapter_has_thirteen_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 13 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


def loaded(module, **weights):
    """``module`` with these weights, given as ``x @ w`` takes them or as biases."""
    state = {name.replace("__", "."): w.T if w.ndim == 2 else w for name, w in weights.items()}
    module.double().load_state_dict({name: torch.from_numpy(w) for name, w in state.items()})
    return module


def test_the_feed_forward_network_is_the_package_s():
    for case in ex.feed_forward.cases():
        x, w_up, b_up, w_down, b_down = case.inputs.values()
        package = FeedForward(d_model=w_up.shape[0], d_ff=w_up.shape[1])
        loaded(
            package,
            up_proj__weight=w_up,
            up_proj__bias=b_up,
            down_proj__weight=w_down,
            down_proj__bias=b_down,
        )
        assert np.allclose(package(torch.from_numpy(x)).detach(), case.want, atol=1e-6)


def test_swiglu_is_the_package_s():
    for case in ex.swiglu.cases():
        x, w_gate, w_up, w_down = case.inputs.values()
        package = SwiGLU(d_model=w_up.shape[0], d_ff=w_up.shape[1])
        loaded(package, gate_proj__weight=w_gate, up_proj__weight=w_up, down_proj__weight=w_down)
        assert np.allclose(package(torch.from_numpy(x)).detach(), case.want, atol=1e-6)


def test_gelu_is_pytorch_s():
    for case in ex.gelu.cases():
        assert np.allclose(F.gelu(*case.tensors()).double(), case.want, atol=1e-6)


@pytest.mark.parametrize("exercise", [ex.route, ex.balance_loss], ids=lambda e: e.name)
def test_router_and_balance_are_the_package_s(exercise):
    for case in exercise.cases():
        scores, top_k = case.inputs.values()
        width = scores.shape[-1]
        package = loaded_router(MixtureOfExperts(d_model=width, d_ff=1, n_experts=width, top_k=top_k))
        for layer, want in zip(torch.from_numpy(scores), case.want, strict=True):
            if exercise is ex.balance_loss:
                assert package.balance_loss(layer).item() == pytest.approx(want, abs=1e-9)
            else:
                weights, chosen = package.route(layer)
                assert np.allclose(torch.zeros_like(layer).scatter(-1, chosen, weights).detach(), want)


def loaded_router(package):
    """A mixture whose router scores an input by its own entries."""
    package = package.double()
    package.router.weight.data = torch.eye(package.d_model, dtype=torch.float64)
    return package


def test_the_predictions_are_the_package_s():
    assert ex.width_of_the_gate.expected == gated_width(4 * 5120, multiple_of=256)
    experts = MixtureOfExperts(d_model=8, d_ff=16, n_experts=4, top_k=2)
    in_all = sum(p.numel() for p in experts.parameters())
    assert ex.weights_that_a_token_meets.expected == (in_all, experts.parameters_per_token())
    layer = FeedForward(d_model=64, d_ff=256)
    assert ex.where_the_weights_are.expected[0] == sum(p.numel() for p in layer.parameters())


# --- what learners wrote, and what they should hear ----------------------------------------------------


def spoiled(exercise, lines):
    """The solution of an exercise with words of its source replaced."""
    text = source(exercise.solve)
    for was, becomes in lines.items():
        assert text.count(was) == 1, was
        text = text.replace(was, becomes)
    names = {"torch": torch, "nn": nn, "F": F}
    exec(text, names)
    return names[exercise.name]


SAID = [
    (ex.feed_forward, {"x @ w_up": "x @ w_up.T"}, "as it is, not turned round, and before `w_down`"),
    (ex.feed_forward, {"x @ w_up": "x @ w_down", "hidden @ w_down": "hidden @ w_up"}, "before `w_down`"),
    (
        ex.feed_forward,
        {"(x @ w_up + b_up).relu()": "max(0, x @ w_up + b_up)"},
        "ask one question of the whole",
    ),
    (
        ex.as_convolutions,
        {"hidden, down_weight": "hidden.mT, down_weight"},
        "The second convolution wants the tokens last as well",
    ),
    (
        ex.as_convolutions,
        {"up_weight[:, :, None], up": "up_weight, up"},
        "A convolution's weight has three axes",
    ),
    (
        ex.as_convolutions,
        {"up_weight[:, :, None], up": "up_weight.T[:, :, None], up"},
        "The weight is turned round",
    ),
    (ex.as_convolutions, {"x = x.transpose(1, 2)": "x = x"}, "there you have the tokens"),
    (
        ex.as_convolutions,
        {"torch.conv1d(x, up_weight[:, :, None], up_bias)": "F.linear(x.mT, up_weight, up_bias).mT"},
        "is off limits in this exercise",
    ),
    (ex.gelu, {"x * share": "F.gelu(x)"}, "is off limits in this exercise"),
    (ex.gelu, {"torch.erf(x / 2**0.5)": "torch.erf(x) / 2**0.5"}, "It is x that is divided"),
    (ex.swiglu, {"gate * (x @ w_up)": "gate * x"}, "The gate meets `x @ w_up`"),
    (ex.swiglu, {"gate * (x @ w_up)": "gate * (x @ w_up @ w_down)"}, "F numbers a token meet D"),
    (
        ex.swiglu,
        {"gate * torch.sigmoid(gate)": "x * torch.sigmoid(gate)"},
        "D numbers a token, as `x` has them",
    ),
    (ex.swiglu, {"gate * (x @ w_up)": "x * gate"}, "D numbers a token, as `x` has them"),
    (ex.swiglu, {"gate * (x @ w_up)": "gate @ (x @ w_up)"}, "Your `@` takes them for matrices"),
    (
        ex.route,
        {"best, chosen = scores.topk(top_k, dim=-1)": "best = chosen = scores.topk(top_k)"},
        "gives two",
    ),
    (ex.balance_loss, {".to(scores.dtype)": ""}, "they have no mean"),
    (
        ex.balance_loss,
        {"softmax(dim=-1).mean": "softmax(dim=-1).sum"},
        "one of the two factors is a sum over",
    ),
    (
        ex.balance_loss,
        {".mean(dim=1)\n    # Even": ".sum(dim=1)\n    # Even"},
        "counts stand where shares are meant",
    ),
    (ex.Experts, {"self.router(x).topk(self.top_k": "self.router(x).topk(top_k"}, "keep it there"),
    (ex.Experts, {", keepdim=True": ""}, "its weight must be (B, T, 1)"),
    (ex.Experts, {"self.top_k = top_k": "pass"}, "keep it there, `self.top_k = top_k`"),
    (ex.Experts, {"share * expert(x)": "weights * expert(x)"}, "its weight must be (B, T, 1)"),
    (ex.Experts, {"nn.ModuleList(": "list("}, "I find no parameter `experts.0.0.weight`"),
    (ex.Experts, {"output = output + share": "output = share"}, "every step wrote over the one before"),
]


@pytest.mark.parametrize(("exercise", "lines", "says"), SAID)
def test_what_is_said(exercise, lines, says):
    message = exercise.check(spoiled(exercise, lines)).message
    assert says in message, message


def test_the_package_s_mixture_is_off_limits():
    class Experts(MixtureOfExperts):
        def __init__(self, d_model, d_ff, n_experts, top_k):
            super().__init__(d_model=d_model, d_ff=d_ff, n_experts=n_experts, top_k=top_k)

    assert "write it without taking it over" in ex.Experts.check(Experts).message


def test_hints_of_the_straight_line_do_not_give_the_repair_away():
    assert "hidden = torch.relu" not in " ".join(ex.TwoLayers.hints)


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (ex.where_the_weights_are, (33_088, 0.67), "give three digits"),
        (ex.where_the_weights_are, (33_088, 0.667), "without the biases"),
        (ex.where_the_weights_are, (1, 0.5), "Count the network's parts one by one"),
        (ex.width_of_the_gate, 54, "Multiply back"),
        (ex.weights_that_a_token_meets, (1536, 800), "The second is right"),
    ],
)
def test_predictions_that_were_made(exercise, answer, says):
    assert says in exercise.check(answer).message


def test_no_prediction_is_told_the_answer():
    for exercise in (ex.where_the_weights_are, ex.width_of_the_gate, ex.weights_that_a_token_meets):
        assert not any(sign.isdigit() and int(sign) > 300 for sign in exercise.otherwise.split())
        assert "·" not in exercise.otherwise


# --- measurements --------------------------------------------------------------------------------------


def silence(seed, bias=-0.25):
    """Hidden numbers of four tokens, before the relu."""
    torch.manual_seed(seed)
    layer, x = nn.Linear(512, 4096), torch.randn(4, 512)
    if bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer(x).detach()


def shares(marked):
    """Of all hidden numbers, how many are marked; of the units, how many are so for all tokens."""
    return marked.double().mean().item(), marked.all(dim=0).double().mean().item()


def test_any_honest_measurement_lands_in_the_range():
    for seed in range(20):
        assert ex.silent_units.check(shares(silence(seed).relu() == 0)), seed


def wrong_measurements(seed):
    hidden = silence(seed)
    silent = hidden.relu() == 0
    (share, units), (loud, never_silent) = shares(silent), shares(~silent)
    return {
        "the other way round": (units, share),
        "Both are the share of the hidden numbers": (share, share),
        "units which are 0 for some token.": (share, silent.any(dim=0).double().mean().item()),
        "units which are not 0 for some token.": (share, 1 - units),
        "Either you counted what is not 0": (loud, never_silent),
        "or your biases are 0.25, without the minus": shares(silence(seed, 0.25) <= 0),
        "Your first share is that of the numbers which are not 0": (loud, units),
        "units which are 0 for none of the tokens": (share, never_silent),
        "Your biases are still those that PyTorch makes": shares(silence(seed, None) <= 0),
        "Nothing is exactly 0 before": ((hidden == 0).double().mean().item(), 0.0),
        "You asked of each token": (share, silent.all(dim=1).double().mean().item()),
        "These are counts": (silent.sum().item(), silent.all(dim=0).sum().item()),
        "These are percentages": (100 * share, 100 * units),
        "A share is at most 1": (share, 3.0),
        "Not in the range": (0.3, 0.5),
        "finite number": (float("nan"), units),
    }


@pytest.mark.parametrize("seed", range(5))
def test_each_wrong_measurement_is_told_why(seed):
    for says, answer in wrong_measurements(seed).items():
        result = ex.silent_units.check(answer)
        assert result.status == "not yet" and says in result.message, (says, result)
