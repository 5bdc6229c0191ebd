"""What heads do: a run of a language model in which every part can be looked at, taken away and put back.

A run is a dictionary, a tensor for each place in the model (``trace`` lists them). Edits are functions by the
same names: each gets what stands at its place and gives what is to stand there instead, and all that follows
is computed from it. Knocking out a head, cutting one path and patching an activation are edits.

Letters as in ``notation``. A head is named by its layer and its number in it, both from 0: (1, 0).
Sources: Elhage et al. (2021), https://transformer-circuits.pub/2021/framework/index.html (heads as terms of a
sum, induction heads); Olsson et al. (2022), https://arxiv.org/abs/2209.11895 (scores of heads, knock-outs).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from .attention import attention
from .masks import causal_mask
from .models.language_model import LanguageModel, LanguageModelConfig, Layer
from .norms import Residual
from .positional import alibi_bias

Head = tuple[int, int]  # layer and head, from 0
Run = dict[str, Tensor]
Edits = Mapping[str, Callable[[Tensor], Tensor]]
Reads = Literal["q", "k", "v"]
Norm = Literal["pre", "none"]

VOCABULARY = tuple("abcdefghijklmnopqrstuvwxyz123456")
LENGTH = 24  # tokens that the chapter's model can read
WEIGHTS = Path(__file__).parent / "weights" / "models" / "induction.safetensors"


# --- the chapter's model ---------------------------------------------------------------------------


def attention_only(n_layers: int = 2, *, norm: Norm = "none", tied: bool = False) -> LanguageModel:
    """A fresh model of attention alone: two heads a layer, learned positions, no feed-forward network.

    Without a norm the stream is a plain sum of what is written into it. ``tied``: as in LanguageModelConfig.
    """
    return LanguageModel(
        LanguageModelConfig(
            vocab_size=len(VOCABULARY),
            d_model=64,
            n_heads=2,
            n_layers=n_layers,
            d_ff=0,
            positions="learned",
            max_len=LENGTH,
            norm=norm,
            tied=tied,
        )
    )


def pretrained() -> LanguageModel:
    """The model with two layers that comes with the package, trained by ``tools/train_page_models.py``.

    It runs in the book's page as well, with the same weights.

    >>> text = torch.tensor([[VOCABULARY.index(letter) for letter in "cabinetcabi"]])
    >>> VOCABULARY[pretrained()(text)[0, -1].argmax()]
    'n'
    """
    model = attention_only()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


# --- a run that can be watched and changed ---------------------------------------------------------


def trace(model: LanguageModel, tokens: Int[Tensor, "B T"], edits: Edits | None = None) -> Run:
    """Run the model, keep what stands at every place, and change what ``edits`` change.

    Without edits the logits are those of ``model(tokens)``. The places, for each layer l = 0 ... L - 1:

    - ``stream.l``: (B, T, D), what flows into the layer; ``stream.L`` is what flows out of the last.
    - ``q_in.l``, ``k_in.l``, ``v_in.l``: (B, H, T, D), what each head makes its queries, keys and values of,
      before the norm. All are copies of ``stream.l``, until an edit makes them differ.
    - ``weights.l``: (B, H, T, S), the attention weights.
    - ``out.l``: (B, H, T, D), what each head adds to the stream. (The bias of the last projection is
      no head's; it is added once.)

    and ``logits``: (B, T, V).

    Args:
        model: its layers are read as they are; nothing in it is changed.
        tokens: ids.
        edits: by place, a function from what stands there to what is to stand there.

    Raises:
        ValueError: an edit of a place that the model does not have, or one that changes a shape.

    >>> from transformer_lab.models.language_model import LanguageModelConfig
    >>> model = LanguageModel(LanguageModelConfig(vocab_size=9, d_model=8, n_heads=2, d_ff=0))
    >>> run = trace(model, torch.zeros(1, 5, dtype=torch.long))
    >>> run["weights.1"].shape, run["out.1"].shape
    (torch.Size([1, 2, 5, 5]), torch.Size([1, 2, 5, 8]))
    """
    run, keep = _recorder(edits or {}, len(model.layers))
    n = tokens.shape[1]
    mask = causal_mask(n, device=tokens.device) if model.config.causal else None
    x, bias = model.embedded(tokens), None
    if model.config.positions == "alibi":
        bias = alibi_bias(model.config.n_heads, n, device=x.device).to(x.dtype)
    for number, layer in enumerate(model.layers):
        x = _through_layer(layer, keep(f"stream.{number}", x), mask, bias, number, keep)
    x = keep(f"stream.{len(model.layers)}", x)
    keep("logits", model.read_out(x))
    return run


def _recorder(edits: Edits, n_layers: int) -> tuple[Run, Callable[[str, Tensor], Tensor]]:
    parts = ("stream", "q_in", "k_in", "v_in", "weights", "out")
    known = {f"{part}.{number}" for part in parts for number in range(n_layers)}
    known |= {f"stream.{n_layers}", "logits"}
    if unknown := sorted(edits.keys() - known):
        last = n_layers - 1
        raise ValueError(f"no place {unknown[0]!r}: this model has {', '.join(parts)} .0 to .{last}, logits")
    run: Run = {}

    def keep(name: str, value: Tensor) -> Tensor:
        if name in edits:
            shape, value = value.shape, edits[name](value)
            if value.shape != shape:
                raise ValueError(f"the edit of {name} must keep {tuple(shape)}, got {tuple(value.shape)}")
        run[name] = value
        return value

    return run, keep


def _through_layer(
    layer: Layer,
    stream: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    number: int,
    keep: Callable[[str, Tensor], Tensor],
) -> Tensor:
    part, around = layer.attention, layer.around_attention
    H = part.n_heads
    projected = {}
    for name, projection in (("q", part.q_proj), ("k", part.k_proj), ("v", part.v_proj)):
        read = keep(f"{name}_in.{number}", stream[:, None].expand(-1, H, -1, -1))  # (B, H, T, D)
        weight, shift = (t.unflatten(0, (H, -1)) for t in (projection.weight, projection.bias))
        projected[name] = torch.einsum("bhtd,hed->bhte", _before(around, read), weight) + shift[:, None]
    if part.rotary is not None:
        positions = torch.arange(stream.shape[1], device=stream.device)
        for name in ("q", "k"):
            projected[name] = part.rotary(projected[name], positions)
    weights = keep(f"weights.{number}", attention(**projected, mask=mask, bias=bias)[1])
    found = weights @ projected["v"]  # (B, H, T, Dh)
    out = torch.einsum("bhte,dhe->bhtd", found, part.out_proj.weight.unflatten(1, (H, -1)))
    x = stream + keep(f"out.{number}", out).sum(dim=1) + part.out_proj.bias
    x = around.norm(x) if around.placement == "post" else x
    return x if layer.feed_forward is None else layer.around_feed_forward(x, layer.feed_forward)


def _before(around: Residual, x: Tensor) -> Tensor:
    return around.norm(x) if around.placement == "pre" else x


# --- edits -----------------------------------------------------------------------------------------


def knock_out(heads: Iterable[Head], fill: Run | None = None) -> Edits:
    """Edits that take away what ``heads`` add to the stream.

    Args:
        heads: (layer, head) of each.
        fill: a run; in place of zero comes what each head adds there on average over the run's sequences, at
            each position. So it keeps what it says about texts in general, and says nothing about this one.

    Raises:
        ValueError: when run: a layer or a head that the model does not have.
    """
    return {
        f"out.{layer}": _without(
            _numbers(heads, layer), None if fill is None else fill[f"out.{layer}"].mean(dim=0)
        )
        for layer in sorted({layer for layer, _ in heads})
    }


def _numbers(heads: Iterable[Head], layer: int) -> list[int]:
    return sorted({head for at, head in heads if at == layer})


def _without(heads: Sequence[int], instead: Tensor | None) -> Callable[[Tensor], Tensor]:
    def edit(out: Tensor) -> Tensor:
        gone = _chosen(heads, out)
        return torch.where(gone, torch.zeros_like(out) if instead is None else instead, out)

    return edit


def _chosen(heads: Sequence[int], x: Tensor) -> Bool[Tensor, "H 1 1"]:
    H = x.shape[1]
    if strange := [head for head in heads if not 0 <= head < H]:
        raise ValueError(f"heads are numbered from 0 to {H - 1}, got {strange[0]}")
    chosen = torch.zeros(H, 1, 1, dtype=torch.bool, device=x.device)
    chosen[list(heads)] = True
    return chosen


def cut(
    run: Run, writers: Iterable[Head], readers: Iterable[Head], reads: Reads, fill: Run | None = None
) -> Edits:
    """Edits that cut the direct paths from ``writers`` to the queries, keys or values of ``readers``.

    The readers read the stream without what the writers put into it; everybody else reads it whole. (Paths
    that lead through a layer in between stay.)

    Args:
        run: of the same tokens, in which the writers' outputs stand.
        writers, readers: (layer, head) of each; every writer in an earlier layer than every reader.
        reads: "q", "k" or "v".
        fill: a run whose mean output takes the writers' place, as in ``knock_out``.

    Raises:
        ValueError: an unknown ``reads``, or a writer that does not come before a reader.
    """
    writers, readers = list(writers), list(readers)
    if reads not in get_args(Reads):
        raise ValueError(f"reads must be 'q', 'k' or 'v', got {reads!r}")
    for writer in writers:
        for reader in readers:
            if writer[0] >= reader[0]:
                raise ValueError(f"a writer must come in an earlier layer, got {writer} for {reader}")
    written = sum(run[f"out.{layer}"][:, head] for layer, head in writers)  # (B, T, D)
    if fill is not None:
        written = written - sum(fill[f"out.{layer}"][:, head].mean(dim=0) for layer, head in writers)

    def edit_for(heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
        return lambda read: torch.where(_chosen(heads, read), read - written[:, None], read)

    layers = sorted({layer for layer, _ in readers})
    return {f"{reads}_in.{layer}": edit_for(_numbers(readers, layer)) for layer in layers}


def patch(run: Run, place: str, positions: Sequence[int]) -> Edits:
    """Edits that put what stood at ``place`` in ``run``, at some positions, into another run.

    Args:
        run: where it comes from, with as many sequences and tokens as where it goes to.
        place: a name of ``trace``; positions: of tokens.

    Raises:
        ValueError: a place that the run does not have, or a position outside of the tokens.
    """
    if place not in run:
        raise ValueError(f"no place {place!r} in this run; it has {', '.join(run)}")
    n = run[place].shape[-2]
    if strange := [position for position in positions if not 0 <= position < n]:
        raise ValueError(f"positions go from 0 to {n - 1}, got {strange[0]}")
    here = torch.zeros(n, 1, dtype=torch.bool, device=run[place].device)
    here[list(positions)] = True
    return {place: lambda x: torch.where(here, run[place], x)}


# --- reading ---------------------------------------------------------------------------------------


def logit_lens(model: LanguageModel, run: Run) -> Float[Tensor, "... T V"]:
    """The stream before each layer and after the last, (L + 1, B, T, D), read by the last projection.

    Source: nostalgebraist (2020), *interpreting GPT: the logit lens*. The last row is the model's answer; the
    others are what it would answer if the layers to come added nothing.
    """
    streams = [run[f"stream.{number}"] for number in range(len(model.layers) + 1)]
    return model.read_out(torch.stack(streams))


def logit_difference(
    logits: Float[Tensor, "B T V"], right: Int[Tensor, "B"], wrong: Int[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """By how much the last token of each sequence prefers one next token to another.

    >>> logits = torch.tensor([[[9.0, 0.0], [1.0, 3.0]]])  # two tokens read; only the last counts
    >>> logit_difference(logits, torch.tensor([1]), torch.tensor([0])).tolist()
    [2.0]
    """
    last = logits[:, -1]
    return (last.gather(1, right[:, None]) - last.gather(1, wrong[:, None]))[:, 0]


# --- what a head looks at --------------------------------------------------------------------------


def previous_token_score(weights: Float[Tensor, "B H T S"]) -> Float[Tensor, "H"]:
    """The mean weight that each head gives to the token just before: over all queries but the first.

    Raises:
        ValueError: weights that are not square, or of fewer than two tokens.

    >>> always = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])  # the first has nothing before it
    >>> previous_token_score(always[None, None]).tolist()
    [1.0]
    """
    _check_square(weights)
    if weights.shape[-1] < 2:
        raise ValueError(f"with fewer than two tokens there is none before, got {weights.shape[-1]}")
    return weights.diagonal(-1, dim1=2, dim2=3).mean(dim=(0, 2))


def induction_score(weights: Float[Tensor, "B H T S"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "H"]:
    """The mean weight that each head gives to tokens that followed an earlier copy of the query's token.

    Over all queries whose token came before. In "a b c a" the last a looks for what followed the first: b.

    Raises:
        ValueError: weights that are not square or do not fit the tokens; no token that comes twice.

    >>> tokens = torch.tensor([[5, 7, 5]])
    >>> weights = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.1, 0.8, 0.1]])  # the last looks at the 7
    >>> round(induction_score(weights[None, None], tokens).item(), 4)
    0.8
    """
    return _weight_on(after_earlier_copy(tokens), weights, tokens)


def same_token_score(weights: Float[Tensor, "B H T S"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "H"]:
    """The mean weight that each head gives to earlier copies of the query's own token.

    Raises:
        ValueError: as ``induction_score``.
    """
    return _weight_on(earlier_copy(tokens), weights, tokens)


def earlier_copy(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Where the token of row t stands earlier, in column s < t."""
    alike = tokens[:, :, None] == tokens[:, None, :]
    return alike.tril(diagonal=-1)


def after_earlier_copy(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Where in row t the token of column s <= t follows an earlier copy of the token of row t.

    >>> after_earlier_copy(torch.tensor([[5, 7, 5]])).long().tolist()  # only the last has an earlier copy
    [[[0, 0, 0], [0, 0, 0], [0, 1, 0]]]
    """
    return earlier_copy(tokens).roll(1, dims=2)  # the last column is empty before, so nothing comes round


def _weight_on(places: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    _check_square(weights)
    if weights.shape[0] != tokens.shape[0] or weights.shape[-1] != tokens.shape[1]:
        shapes = f"{tuple(weights.shape)} for {tuple(tokens.shape)}"
        raise ValueError(f"weights must be (B, H, T, T) for tokens (B, T), got {shapes}")
    asked = places.any(dim=-1)  # (B, T)
    if not asked.any():
        raise ValueError("no token comes twice, so there is nothing to look back to")
    on = (weights * places[:, None]).sum(dim=-1)  # (B, H, T)
    return on.transpose(1, 2)[asked].mean(dim=0)


def _check_square(weights: Tensor) -> None:
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"weights must be (B, H, T, T), got {tuple(weights.shape)}")
