"""LanguageModel: a small decoder-only Transformer with exchangeable parts, the bench of the chapters.

Notable: how positions are told, where the norm stands, what the feed-forward network is and whether the
    future is
hidden are settings; the embedding is shared with the last projection, or is not; nothing is dropped out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..feed_forward import FeedForward
from ..masks import causal_mask
from ..norms import LayerNorm, Residual
from ..positional import LearnedPositions, alibi_bias, rotate, sinusoidal

Positions = Literal["none", "sinusoidal", "learned", "rope", "alibi"]


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """The settings of a ``LanguageModel``.

    Args:
        vocab_size: number of different tokens V.
        d_model: width D; n_heads: heads H; n_layers: layers L.
        d_ff: hidden width F of the feed-forward networks; 0 leaves them out.
        positions: how positions are told.
        max_len: rows of the table of learned positions.
        position_scale: positions are multiplied by it; trained / longer is position interpolation (RoPE
            only).
        norm: where the norm stands, as in ``norms.Residual``.
        causal: hide the future; False lets it leak.
        tied: the embedding is the last projection, too; False gives that one weights of its own.

    Raises:
        ValueError: a size below 1, an unknown way to tell positions, a scale without RoPE.
    """

    vocab_size: int
    d_model: int = 64
    n_heads: int = 4
    n_layers: int = 2
    d_ff: int = 256
    positions: Positions = "rope"
    max_len: int = 64
    position_scale: float = 1.0
    norm: Literal["pre", "post", "none"] = "pre"
    causal: bool = True
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.d_ff < 0:
            raise ValueError(f"d_ff must be 0 or more, got {self.d_ff}")
        if self.positions not in get_args(Positions):
            raise ValueError(
                f"positions must be one of {', '.join(get_args(Positions))}; got {self.positions!r}"
            )
        if self.position_scale != 1.0 and self.positions != "rope":
            raise ValueError(f"position_scale needs positions='rope', got {self.positions!r}")


class LanguageModel(nn.Module):
    """Scores for the next token at every position.

    Args:
        config: the settings.
        feed_forward: makes the feed-forward network of each layer from the width D, in place of a
            ``FeedForward`` with GELU and ``config.d_ff`` hidden numbers.

    >>> import torch
    >>> model = LanguageModel(LanguageModelConfig(vocab_size=30, d_model=8, n_heads=2, d_ff=16))
    >>> model(torch.zeros(1, 5, dtype=torch.long)).shape
    torch.Size([1, 5, 30])
    """

    def __init__(
        self, config: LanguageModelConfig, *, feed_forward: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)  # it also makes the scores
        self.learned = (
            LearnedPositions(max_len=config.max_len, d_model=config.d_model)
            if config.positions == "learned"
            else None
        )
        self.layers = nn.ModuleList(Layer(config, feed_forward) for _ in range(config.n_layers))
        self.norm = LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.scores = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Raises ValueError where learned positions end before the tokens do."""
        return self.read_out(self.stream(tokens))

    def read_out(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """The scores that a vector of the stream stands for: the final norm, then the last projection."""
        y = self.norm(x)
        return y @ self.embed.weight.T if self.scores is None else self.scores(y)

    def stream(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """What flows out of the last layer, before the final norm."""
        return self.through(self.embedded(tokens))

    def embedded(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """What flows into the first layer: entries of size about 1, and positions where they are added."""
        x = self.embed(tokens) * self.config.d_model**0.5
        if self.learned is not None:
            return self.learned(x)
        if self.config.positions == "sinusoidal":
            return x + sinusoidal(tokens.shape[1], self.config.d_model, device=x.device).to(x.dtype)
        return x

    def through(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """All layers, one after the other."""
        n = x.shape[1]
        mask = causal_mask(n, device=x.device) if self.config.causal else None
        bias = None
        if self.config.positions == "alibi":
            bias = alibi_bias(self.config.n_heads, n, device=x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, mask, bias)
        return x


class Layer(nn.Module):
    """Attention and a feed-forward network, each with its skip connection and norm."""

    def __init__(
        self, config: LanguageModelConfig, feed_forward: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        rotary = None
        if config.positions == "rope":
            rotary = partial(_scaled_rotate, config.position_scale)
        self.attention = MultiHeadAttention(d_model=config.d_model, n_heads=config.n_heads, rotary=rotary)
        self.around_attention = Residual(config.d_model, placement=config.norm)
        if feed_forward is not None:
            self.feed_forward = feed_forward(config.d_model)
        elif config.d_ff:
            self.feed_forward = FeedForward(d_model=config.d_model, d_ff=config.d_ff, activation="gelu")
        else:
            self.feed_forward = None
        self.around_feed_forward = (
            Residual(config.d_model, placement=config.norm) if self.feed_forward else None
        )

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Float[Tensor, "B T D"]:
        x = self.around_attention(x, lambda h: self.attention(h, h, mask, bias=bias))
        return x if self.feed_forward is None else self.around_feed_forward(x, self.feed_forward)


def _scaled_rotate(scale: float, x: Tensor, positions: Tensor) -> Tensor:
    return rotate(x, positions * scale)
