"""Generation: how an encoder-decoder writes, token by token. Chapter "The full model".

Letters as in ``notation``: B batch, S source tokens, T target tokens, V vocabulary; K is the number of beams.
Sources: Vaswani et al. (2017), section 6.1, https://arxiv.org/abs/1706.03762 (beam search); Wu et al. (2016),
https://arxiv.org/abs/1609.08144 (length penalty); Fan et al. (2018), https://arxiv.org/abs/1805.04833
(top-k); Holtzman et al. (2020), https://arxiv.org/abs/1904.09751 (top-p).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def greedy(model: nn.Module, source: Int[Tensor, "B S"], *, max_len: int | None = None) -> Int[Tensor, "B T"]:
    """Always the token with the highest score.

    Args:
        model: a ``Transformer``, or a module with the same ``start``, ``step`` and ``config``; in training
            mode or not, it writes as in evaluation.
        source: token ids, short rows filled up with ``pad_id``.
        max_len: the most tokens to write, the end included. None: 50 more than the source has.

    Returns:
        What was written, without ``bos_id``. Rows end with ``eos_id``, filled up with ``pad_id``; a row that
        was cut at ``max_len`` has no end.

    Raises:
        ValueError: ``max_len`` below 1, or more than the model's.
    """
    return _write(model, source, lambda scores: scores.argmax(dim=-1), max_len)


def sample(
    model: nn.Module,
    source: Int[Tensor, "B S"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    max_len: int | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B T"]:
    """Each token by chance, with the probability that the model gives it.

    Args:
        model, source, max_len: as for ``greedy``, as is what returns.
        temperature: scores are divided by it: below 1 likely tokens become likelier, above 1 the unlikely.
        top_k: draw from the k likeliest tokens only; top_p: draw from the fewest likeliest tokens whose
            probabilities reach p. Both may be given: first k, then p of what is left.
        generator: a source of chance on the device of the model.

    Raises:
        ValueError: ``temperature`` is not positive, ``top_k`` below 1, or ``top_p`` not in (0, 1].
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}; greedy(...) is what 0 would mean")

    def draw(scores: Tensor) -> Tensor:
        scores = scores / temperature
        if top_k is not None:
            scores = keep_top_k(scores, top_k)
        if top_p is not None:
            scores = keep_top_p(scores, top_p)
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]

    return _write(model, source, draw, max_len)


def keep_top_k(scores: Float[Tensor, "... V"], k: int) -> Float[Tensor, "... V"]:
    """The k highest scores; the others become minus infinity. Of equal scores at the edge, all stay.

    Raises:
        ValueError: k below 1.

    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    if k < 1:
        raise ValueError(f"top_k must be 1 or more, got {k}")
    least = scores.topk(min(k, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < least, float("-inf"))


def keep_top_p(scores: Float[Tensor, "... V"], p: float) -> Float[Tensor, "... V"]:
    """The fewest highest scores whose probabilities reach p; the others become minus infinity.

    Raises:
        ValueError: p is not in (0, 1].

    >>> keep_top_p(torch.tensor([1.0, 5.0, 4.0]), 0.8).tolist()  # probabilities 0.01, 0.72, 0.27
    [-inf, 5.0, 4.0]
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {p}")
    ranked, order = scores.sort(dim=-1, descending=True)
    probabilities = ranked.softmax(dim=-1)
    reached = probabilities.cumsum(dim=-1) - probabilities >= p  # by those before it: this one is not needed
    return scores.masked_fill(torch.zeros_like(reached).scatter(-1, order, reached), float("-inf"))


@dataclass(frozen=True)
class Hypothesis:
    """One translation that beam search found.

    Args:
        tokens: without ``bos_id``, and with ``eos_id`` unless it was cut.
        log_probability: of all its tokens together, in nats.
        score: what hypotheses are ranked by: ``log_probability`` / ``length_penalty``.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float


def length_penalty(n_tokens: int, alpha: float) -> float:
    """((5 + n) / 6) to the power alpha: equation (14) of Wu et al. (2016). 0 leaves length alone.

    >>> length_penalty(1, 0.6), length_penalty(7, 1.0)
    (1.0, 2.0)
    """
    return ((5 + n_tokens) / 6) ** alpha


def beam_search(
    model: nn.Module,
    source: Int[Tensor, "B S"],
    *,
    beam_size: int = 4,
    alpha: float = 0.6,
    max_len: int | None = None,
) -> Int[Tensor, "B T"]:
    """The best hypothesis of ``beams`` for each row, filled up with ``pad_id``."""
    best = [
        found[0].tokens for found in beams(model, source, beam_size=beam_size, alpha=alpha, max_len=max_len)
    ]
    longest = max(map(len, best), default=0)
    rows = [[*tokens, *[model.config.pad_id] * (longest - len(tokens))] for tokens in best]
    return torch.tensor(rows, dtype=torch.long, device=source.device).reshape(len(source), longest)


def beams(
    model: nn.Module,
    source: Int[Tensor, "B S"],
    *,
    beam_size: int = 4,
    alpha: float = 0.6,
    max_len: int | None = None,
) -> list[list[Hypothesis]]:
    """The K best ways to go on are kept at every step, for all rows at once.

    One that ends is finished, and K becomes smaller by one, so that what is likely is not dropped because
    unlikely hypotheses ended before it. What is still open at ``max_len`` is cut. Source: Vaswani et al.
    (2017), section 6.1, for the numbers.

    Args:
        model, source, max_len: as for ``greedy``.
        beam_size: K. With 1, it is greedy search.
        alpha: of the ``length_penalty``.

    Returns:
        For each row at most K hypotheses, the best first.

    Raises:
        ValueError: ``beam_size`` below 1, or ``max_len`` as for ``greedy``.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be 1 or more, got {beam_size}")
    n, k, v = len(source), beam_size, model.config.vocab_size
    limit = _limit(model, source, max_len)
    finished: list[list[Hypothesis]] = [[] for _ in range(n)]
    never = _never(model, source.device)
    with _evaluating(model):
        state = model.start(source).rows(torch.arange(n, device=source.device).repeat_interleave(k))
        tokens = torch.full((n * k, 1), model.config.bos_id, device=source.device)
        total = torch.full((n, k), float("-inf"), device=source.device)
        total[:, 0] = 0.0  # all beams are alike at first: only one may branch
        width = torch.full((n, 1), k, device=source.device)
        for _ in range(limit):
            log_p = (model.step(tokens[:, -1:], state)[:, -1] + never).log_softmax(dim=-1)
            reached = (total[..., None] + log_p.view(n, k, v)).flatten(1)  # (B, K V)
            best, index = reached.topk(k)
            best[torch.arange(k, device=best.device) >= width] = float("-inf")
            ends = (index % v == model.config.eos_id) & (best > float("-inf"))
            for row, rank in ends.nonzero().tolist():
                beam = row * k + index[row, rank].item() // v
                written = (*tokens[beam, 1:].tolist(), model.config.eos_id)
                finished[row].append(_hypothesis(written, best[row, rank].item(), alpha))
            width -= ends.sum(dim=1, keepdim=True)
            total = best.masked_fill(ends, float("-inf"))
            if (total == float("-inf")).all():
                break
            beam = (index // v + k * torch.arange(n, device=index.device)[:, None]).flatten()
            tokens = torch.cat([tokens[beam], (index % v).view(-1, 1)], dim=1)
            state = state.rows(beam)
    for row, open_beams in enumerate(total.tolist()):
        for i, log_probability in enumerate(open_beams):
            if log_probability > float("-inf"):
                cut = tuple(tokens[row * k + i, 1:].tolist())
                finished[row].append(_hypothesis(cut, log_probability, alpha))
    return [sorted(row, key=lambda found: -found.score) for row in finished]


def _hypothesis(tokens: tuple[int, ...], log_probability: float, alpha: float) -> Hypothesis:
    return Hypothesis(tokens, log_probability, log_probability / length_penalty(len(tokens), alpha))


def _write(
    model: nn.Module, source: Tensor, choose: Callable[[Tensor], Tensor], max_len: int | None
) -> Tensor:
    limit = _limit(model, source, max_len)
    pad, eos = model.config.pad_id, model.config.eos_id
    last = torch.full((len(source), 1), model.config.bos_id, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    written = []
    never = _never(model, source.device)
    with _evaluating(model):
        state = model.start(source)
        while len(written) < limit and not ended.all():
            last = choose(model.step(last, state)[:, -1] + never).masked_fill(ended, pad)[:, None]
            written.append(last)
            ended |= last[:, 0] == eos
    return torch.cat(written, dim=1) if written else source.new_empty(len(source), 0)


def _limit(model: nn.Module, source: Tensor, max_len: int | None) -> int:
    most = model.config.max_len
    if max_len is None:
        return min(source.shape[1] + 50, most)
    if not 1 <= max_len <= most:
        raise ValueError(f"max_len must be from 1 to the model's {most}, got {max_len}")
    return max_len


def _never(model: nn.Module, device: torch.device) -> Tensor:
    """Added to scores (V): minus infinity for padding and for a second beginning, which nobody writes."""
    never = torch.zeros(model.config.vocab_size, device=device)
    never[[model.config.pad_id, model.config.bos_id]] = float("-inf")
    return never


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside, and no notes for gradients; afterwards the model is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():  # tensors without a history, which PyTorch handles faster
            yield
    finally:
        model.train(training)
