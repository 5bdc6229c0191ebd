"""The long runs of the chapter on norms: depth, learning rates survived, and two layers that work together.

``python -m transformer_lab.training.norms`` measures all of it again and stores it, in about half an hour.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .. import induction
from ..attention import MultiHeadAttention
from ..data.made_up import encode_text, stories
from ..feed_forward import FeedForward
from ..models.language_model import LanguageModel, LanguageModelConfig
from ..norms import LayerNorm, token_diversity
from . import results
from .language_model import train_language_model

# --- depth, before any training ------------------------------------------------------------------

WIRINGS = {  # name: (skip connection, where the norm stands, feed-forward networks)
    "pre-norm": (True, "before", True),
    "post-norm": (True, "after", True),
    "residual, no norm": (True, None, True),
    "norm, no residual": (False, "after", True),
    "neither": (False, None, True),
    "attention with residual": (True, None, False),
    "attention alone": (False, None, False),
}
DEPTHS = (2, 4, 8, 12, 16, 24, 32, 48)


class Stack(nn.Module):
    """Layers of attention and feed-forward networks, wired in one of the ways of ``WIRINGS``.

    A pre-norm stack ends in a norm.

    Args:
        wiring: a name in ``WIRINGS``; depth: number of layers.
        gain: every matrix starts as PyTorch starts it, times this. PyTorch's matrices shorten what comes in,
            to about 1/√3; with a gain of √3 they keep its length.

    Raises:
        ValueError: an unknown wiring, or no layer.

    >>> Stack("pre-norm", depth=2, d_model=8, n_heads=2)(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, wiring: str, *, depth: int, d_model: int = 64, n_heads: int = 4, gain: float = 1.0
    ) -> None:
        super().__init__()
        if wiring not in WIRINGS:
            raise ValueError(f"wiring must be one of {'; '.join(WIRINGS)}, got {wiring!r}")
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}")
        self.skip, self.place, feed_forward = WIRINGS[wiring]
        self.attentions = nn.ModuleList(
            MultiHeadAttention(d_model=d_model, n_heads=n_heads) for _ in range(depth)
        )
        self.feed_forwards = nn.ModuleList(
            FeedForward(d_model=d_model, d_ff=4 * d_model, activation="gelu")
            for _ in range(depth * feed_forward)
        )
        self.norm = LayerNorm(d_model)  # fresh norms are all alike: one stands for all
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.weight *= gain

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.finish(self.after_each_layer(x)[-1])

    def finish(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """What the last layer gave, through the final norm where there is one."""
        return self.norm(x) if self.skip and self.place == "before" else x

    def after_each_layer(self, x: Float[Tensor, "B T D"]) -> list[Float[Tensor, "B T D"]]:
        """What flows out of every layer, the last one last and before the final norm."""
        layers = []
        for i, attention in enumerate(self.attentions):
            x = self._around(x, lambda h, attention=attention: attention(h, h))
            if self.feed_forwards:
                x = self._around(x, self.feed_forwards[i])
            layers.append(x)
        return layers

    def _around(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        y = sublayer(self.norm(x) if self.place == "before" else x)
        if self.skip:
            y = x + y
        return self.norm(y) if self.place == "after" else y


def depth_run(wiring: str, depth: int, *, seed: int = 0, gain: float = 1.0) -> dict[str, list[float]]:
    """What a fresh stack does to tokens on the way up and to the gradient on the way down, layer by layer.

    Four sequences of 32 random tokens go in, and a random gradient of length 1 comes back from the output.

    Returns:
        "diversity": of the tokens after each layer; "gradient": the length of the gradient of each layer's
        attention weights; "query gradient": of its matrix of queries alone.

    >>> run = depth_run("post-norm", 2)
    >>> [len(values) for values in run.values()]
    [2, 2, 2]
    """
    torch.manual_seed(seed)
    stack = Stack(wiring, depth=depth, gain=gain).double()  # float64: a gradient of 1e-60 is not yet 0
    x = torch.randn(4, 32, 64, dtype=torch.float64)
    layers = stack.after_each_layer(x)
    output = stack.finish(layers[-1])
    upstream = torch.randn_like(output)
    output.backward(upstream / upstream.norm())
    return {
        "diversity": [token_diversity(layer.detach()).mean().item() for layer in layers],
        "gradient": [
            torch.cat([p.grad.flatten() for p in attention.parameters()]).norm().item()
            for attention in stack.attentions
        ],
        "query gradient": [attention.q_proj.weight.grad.norm().item() for attention in stack.attentions],
    }


def depth_runs(seeds: Sequence[int] = (0, 1, 2)) -> dict[str, object]:
    """``depth_run`` for every wiring and depth; each number the geometric mean over the seeds.

    Returns:
        "wirings" and "depths": what there is; "gradient", "query gradient" and "diversity": for each wiring
        and each depth (as text, for JSON has no other keys) one number per layer.
    """
    measured: dict[str, dict] = {"gradient": {}, "query gradient": {}, "diversity": {}}
    for wiring in WIRINGS:
        for depth in DEPTHS:
            runs = [depth_run(wiring, depth, seed=seed) for seed in seeds]
            for name, of_wiring in measured.items():
                layers = zip(*(run[name] for run in runs), strict=True)
                means = [_significant(_geometric_mean(values)) for values in layers]
                of_wiring.setdefault(wiring, {})[str(depth)] = means
    return {"wirings": list(WIRINGS), "depths": list(DEPTHS)} | measured


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(max(value, 1e-300)) for value in values) / len(values))


def _significant(value: float) -> float:
    return float(f"{value:.3g}")


# --- learning rates that training survives -------------------------------------------------------

PLACEMENTS = ("pre", "post", "none")
RATES = {  # name: (learning rate, warm-up steps)
    "0.001": (1e-3, 0),
    "0.004": (4e-3, 0),
    "0.016": (1.6e-2, 0),
    "0.016, warm-up": (1.6e-2, 100),
}
STEPS, WINDOW = 250, 10
THRESHOLD = 2.0  # nats per character: letter frequencies alone give 2.85, and no run passes by luck


def survival_run(
    placement: Literal["pre", "post", "none"],
    lr: float,
    *,
    warmup: int = 0,
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[list[float], float]:
    """Train eight layers on the stories, with Adam at one learning rate, without clipping or decay.

    Returns:
        The loss of every step, and the token diversity of the last layer's output afterwards, on new text.
    """
    torch.manual_seed(seed)
    config = LanguageModelConfig(vocab_size=30, d_model=48, d_ff=192, n_layers=8, norm=placement)
    model = LanguageModel(config)
    losses = train_language_model(
        model,
        encode_text(stories(200_000)),
        steps=steps,
        length=32,
        batch_size=8,
        lr=lr,
        warmup=warmup,
        decay=False,
        seed=seed,
    )
    with torch.no_grad():
        stream = model.stream(encode_text(stories(256, seed=1)).view(8, 32))
    return losses, token_diversity(stream).mean().item()


def summary(losses: Sequence[float], threshold: float = THRESHOLD) -> dict[str, object]:
    """What a reader wants to know of a run; means are over ``WINDOW`` steps, so that no lucky batch counts.

    Returns:
        "steps": after how many the mean loss of the last ones was below ``threshold``, None for never;
        "final": the mean at the end, None where it is no number; "curve": the mean of every window.

    >>> summary([5.0] * 10 + [1.0] * 10)
    {'steps': 18, 'final': 1.0, 'curve': [5.0, 1.0]}
    """
    means = [_mean(losses[end - WINDOW : end]) for end in range(WINDOW, len(losses) + 1)]
    below = (i + WINDOW for i, mean in enumerate(means) if mean < threshold)
    curve = [_storable(mean) for mean in means[::WINDOW]]
    return {"steps": next(below, None), "final": curve[-1], "curve": curve}


def survival_runs(seeds: Sequence[int] = (0, 1, 2)) -> dict[str, object]:
    """``survival_run`` for every placement and rate: lists with one entry per seed."""
    runs: dict[str, dict] = {placement: {} for placement in PLACEMENTS}
    for placement in PLACEMENTS:
        for rate, (lr, warmup) in RATES.items():
            measured: dict[str, list] = {"steps": [], "final": [], "curve": [], "diversity": []}
            for seed in seeds:
                losses, diversity = survival_run(placement, lr, warmup=warmup, seed=seed)
                for name, value in summary(losses).items():
                    measured[name].append(value)
                measured["diversity"].append(_storable(diversity))
            runs[placement][rate] = measured
    return {"threshold": THRESHOLD, "steps": STEPS, "window": WINDOW, "seeds": list(seeds), "runs": runs}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _storable(value: float) -> float | None:
    """JSON has no word for infinity or for what is not a number."""
    return _significant(value) if math.isfinite(value) else None


# --- what one layer writes, the next one reads ---------------------------------------------------

SYMBOLS, LENGTH = len(induction.VOCABULARY), induction.LENGTH
PERIODS = range(6, 13)  # each fits into LENGTH twice
REPEAT_STEPS = {"none": 2000, "pre": 6000}  # by placement: pre-norm takes longer here


def repeats(
    n: int, generator: torch.Generator, periods: Sequence[int] = PERIODS
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Rows of ``LENGTH`` symbols: each begins at random, and repeats its beginning from some place on.

    Returns:
        The rows, and how long the beginning of each is: one of ``periods``.

    >>> rows, period = repeats(1, torch.Generator().manual_seed(0), periods=[6])
    >>> torch.equal(rows[:, :18], rows[:, 6:])
    True
    """
    period = torch.tensor(periods)[torch.randint(len(periods), (n,), generator=generator)]
    symbols = torch.randint(SYMBOLS, (n, LENGTH), generator=generator)
    return symbols.gather(1, torch.arange(LENGTH) % period[:, None]), period


def attention_only(n_layers: int, norm: Literal["pre", "post", "none"], *, seed: int = 0) -> LanguageModel:
    """``induction.attention_only`` with a tied projection, and with first weights that ``seed`` chooses."""
    torch.manual_seed(seed)
    return induction.attention_only(n_layers, norm=norm, tied=True)


def train_on_repeats(
    model: LanguageModel, *, steps: int, lr: float = 3e-3, batch_size: int = 64, seed: int = 0
) -> None:
    """Train ``model`` in place to predict each next symbol; the rate rises, then falls to 0."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    for _ in range(steps):
        rows = repeats(batch_size, generator)[0].to(device)
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def copied(model: nn.Module, n: int = 500, seed: int = 1) -> float:
    """The share of right predictions in ``n`` new rows, where the repetition has begun.

    The first repeated symbol does not count: nothing before it says that the row begins again.
    """
    rows, period = (
        t.to(next(model.parameters()).device) for t in repeats(n, torch.Generator().manual_seed(seed))
    )
    right = model(rows[:, :-1]).argmax(dim=-1) == rows[:, 1:]
    begun = torch.arange(1, LENGTH, device=rows.device) > period[:, None]
    return right[begun].double().mean().item()


@torch.no_grad()
def weights_of(model: LanguageModel, rows: Int[Tensor, "B T"]) -> list[Float[Tensor, "B H T T"]]:
    """The attention weights of every layer."""
    weights: list[Tensor] = []
    hooks = [
        layer.attention.register_forward_pre_hook(
            lambda attention, inputs: weights.append(attention.weights(*inputs))
        )
        for layer in model.layers
    ]
    model(rows)
    for hook in hooks:
        hook.remove()
    return weights


def head_scores(model: LanguageModel, n: int = 200, period: int = 11) -> dict[str, list[list[float]]]:
    """What every head looks at where a row repeats itself: its mean weight on three places.

    Returns:
        A list per layer with a number per head: "previous" is the symbol before, "same" the earlier place of
        the symbol just read, "after" the place after that, where the answer stands.
    """
    rows, _ = repeats(n, torch.Generator().manual_seed(2), [period])
    weights = weights_of(model, rows.to(next(model.parameters()).device))
    steps_back = {"previous": 1, "same": period, "after": period - 1}
    query = torch.arange(period, LENGTH)
    return {
        name: [layer[:, :, query, query - back].double().mean(dim=(0, 2)).tolist() for layer in weights]
        for name, back in steps_back.items()
    }


@contextmanager
def without_head(model: LanguageModel, layer: int, head: int) -> Iterator[None]:
    """Inside, what one head found is not written into the stream; layers and heads count from 0."""
    attention = model.layers[layer].attention
    width = attention.d_model // attention.n_heads
    written = attention.out_proj.weight.detach()[:, head * width : (head + 1) * width]
    kept = written.clone()
    written.zero_()
    try:
        yield
    finally:
        written.copy_(kept)


def induction_runs(seeds: Sequence[int] = range(10)) -> dict[str, object]:
    """How well one layer and two go on with a row that repeats itself, and by what their heads do it.

    Returns:
        "copied": for every placement of the norm and number of layers, the shares of three starts; "heads":
        of two layers without norms, one entry per seed, what the best head of a layer scores.
    """
    shares: dict[str, dict[str, list[float]]] = {}
    for norm, steps in REPEAT_STEPS.items():
        for n_layers in (1, 2):
            for seed in seeds[:3]:
                model = attention_only(n_layers, norm, seed=seed)
                train_on_repeats(model, steps=steps, seed=seed)
                shares.setdefault(norm, {}).setdefault(str(n_layers), []).append(_significant(copied(model)))
    heads: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in induction_run(seed).items():
            heads.setdefault(name, []).append(_significant(value))
    return {"steps": REPEAT_STEPS, "copied": shares, "heads": heads}


def induction_run(seed: int) -> dict[str, float]:
    """Train two layers without norms for 2000 steps; what their heads do, and what is lost without one."""
    model = attention_only(2, "none", seed=seed)
    train_on_repeats(model, steps=REPEAT_STEPS["none"], seed=seed)
    scores = head_scores(model)
    after = scores["after"][1]
    best = after.index(max(after))
    with without_head(model, 1, best):
        without_it = copied(model)
    with without_head(model, 1, 1 - best):
        without_the_other = copied(model)
    return {
        "copied": copied(model),
        "previous": max(scores["previous"][0]),
        "same": max(scores["same"][0]),
        "after": max(after),
        "without it": without_it,
        "without the other": without_the_other,
    }


def measure() -> dict[str, object]:
    """Everything that the chapter reads from its stored results."""
    return {"depth": depth_runs(), "survival": survival_runs(), "induction": induction_runs()}


if __name__ == "__main__":
    print(results.write("norms", measure()).name)
