"""The encoder-decoder of 2017: every part of the chapters before, put together. Chapter "The full model".

Letters as in ``notation``: B batch, T target tokens, S source tokens, D model width, V vocabulary. Source:
Vaswani et al. (2017), https://arxiv.org/abs/1706.03762. Notable: one matrix embeds the source, embeds the
target and makes the scores (section 3.4); reading a whole target and writing it token by token are the same
code, ``step``, which goes on where the last call stopped; the norms are PyTorch's, the same as
``norms.LayerNorm`` and faster to train.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .attention import MultiHeadAttention
from .feed_forward import FeedForward
from .masks import causal_mask, padding_mask
from .norms import Residual
from .notation import Mask
from .positional import sinusoidal

KeysValues = tuple[Tensor, Tensor]  # each (B, H, S, Dh), of the source or of the target up to now


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The settings of a ``Transformer``.

    Args:
        vocab_size: number of different tokens V, of both languages together.
        d_model: width D; n_heads: heads H; d_ff: hidden width F of the feed-forward networks.
        n_layers: layers of the encoder, and of the decoder.
        activation: of the feed-forward networks, one of ``feed_forward.ACTIVATIONS``.
        dropout: probability of dropping a number of an embedding or of what a sub-layer gives, in training
            only.
        norm: where the norm stands, as in ``norms.Residual``.
        final_norm: a norm after the last layer of each side. None: with pre-norm only, which needs it.
        max_len: the longest row of tokens that can be read or written.
        pad_id, bos_id, eos_id: the tokens that fill up short rows, open a target and end it.

    Raises:
        ValueError: a size below 1, an unknown place of the norm, or special tokens that are not three
            different ids of the vocabulary. The parts check the rest.
    """

    vocab_size: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    d_ff: int = 2048
    activation: str = "relu"
    dropout: float = 0.1
    norm: Literal["pre", "post"] = "post"
    final_norm: bool | None = None
    max_len: int = 512
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post', got {self.norm!r}")
        special = (self.pad_id, self.bos_id, self.eos_id)
        if len(set(special)) < 3 or not all(0 <= i < self.vocab_size for i in special):
            raise ValueError(
                f"pad_id, bos_id and eos_id must be three different ids below vocab_size={self.vocab_size},"
                f" got {special}"
            )

    @classmethod
    def base(cls, vocab_size: int = 37_000) -> "TransformerConfig":
        """The base model of the paper, Table 3: 63.1 million parameters with its vocabulary."""
        return cls(vocab_size=vocab_size)

    @classmethod
    def tiny(cls, vocab_size: int) -> "TransformerConfig":
        """About 0.7 million parameters: trains in minutes on two CPU cores."""
        return cls(
            vocab_size=vocab_size, d_model=96, n_heads=4, n_layers=3, d_ff=288, norm="pre", max_len=128
        )


class DecoderState:
    """What a decoder has at hand: the source, read by the encoder, and the target up to now.

    Args:
        source_mask: (B, 1, 1, S), which source tokens are real. None: all are.
        memory: for each layer the keys and values of the source.
    """

    def __init__(self, source_mask: Mask | None, memory: list[KeysValues]) -> None:
        self.source_mask, self.memory = source_mask, memory
        self.past: list[KeysValues] = []  # for each layer the keys and values of the target up to now

    @property
    def length(self) -> int:
        """How many target tokens have been read."""
        return self.past[0][0].shape[2] if self.past else 0

    def rows(self, index: Int[Tensor, "N"]) -> "DecoderState":
        """The state of these rows only; an index may come several times: a beam branches."""
        mask = None if self.source_mask is None else self.source_mask[index]
        state = DecoderState(mask, [_rows(kv, index) for kv in self.memory])
        state.past = [_rows(kv, index) for kv in self.past]
        return state


class Transformer(nn.Module):
    """An encoder that reads the source, and a decoder that writes the target token by token.

    Source: Vaswani et al. (2017), section 3. Differs from it: every projection of attention has a bias (as in
    most implementations).

    Args:
        config: the settings.

    >>> model = Transformer(TransformerConfig.tiny(vocab_size=20))
    >>> source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 8]])
    >>> model(source, target).shape  # (B, T, V)
    torch.Size([1, 2, 20])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        positions = sinusoidal(config.max_len, config.d_model)
        self.register_buffer("positions", positions, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        ends = config.norm == "pre" if config.final_norm is None else config.final_norm
        self.encoder_norm = nn.LayerNorm(config.d_model) if ends else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.d_model) if ends else nn.Identity()
        self._initialise()

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """The scores of the token that follows each target token.

        Args:
            source: token ids, short rows filled up with ``pad_id``.
            target: token ids that begin with ``bos_id``; row t of the scores has seen tokens 0 to t.

        Raises:
            ValueError: rows longer than ``max_len``, tables that are not (B, S) and (B, T), or an id outside
                the vocabulary.
            TypeError: tokens that are not whole numbers.
        """
        return self.decode(target, self.encode(source), source)

    def encode(self, source: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The source as the encoder understands it: one vector for each token, padding included."""
        mask = padding_mask(source, self.config.pad_id)
        x = self._embed(source, "source", start=0)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x)

    def decode(
        self, target: Int[Tensor, "B T"], memory: Float[Tensor, "B S D"], source: Int[Tensor, "B S"]
    ) -> Float[Tensor, "B T V"]:
        """``forward`` from what ``encode(source)`` gave; ``source`` tells where padding stands."""
        return self.step(target, self._state(memory, source))

    def start(self, source: Int[Tensor, "B S"]) -> DecoderState:
        """Read the source; from here ``step`` writes."""
        state = self._state(self.encode(source), source)
        if state.source_mask.all():
            state.source_mask = None  # many steps will read it, and attention is faster without
        return state

    def step(self, tokens: Int[Tensor, "B T"], state: DecoderState) -> Float[Tensor, "B T V"]:
        """The scores after each of some more target tokens, which are added to ``state``.

        Padding stands at the end of a row, where no real token sees it; what is scored there means nothing.
        """
        if tokens.ndim != 2:
            raise ValueError(f"target must have axes (B, T), got shape {tuple(tokens.shape)}")
        if len(tokens) != len(state.memory[0][0]):
            sizes = f"{len(state.memory[0][0])} and {len(tokens)}"
            raise ValueError(f"source and target must hold equally many sentences, got {sizes}")
        x = self._embed(tokens, "target", start=state.length)
        mask = None  # a single token stands at the end and sees all
        if tokens.shape[1] > 1:
            mask = causal_mask(tokens.shape[1], state.length + tokens.shape[1], device=x.device)
        past = state.past or [None] * len(self.decoder)
        state.past = []
        for layer, before, memory in zip(self.decoder, past, state.memory, strict=True):
            x, kept = layer.step(x, before, memory, mask, state.source_mask)
            state.past.append(kept)
        return self.decoder_norm(x) @ self.embed.weight.T

    @torch.no_grad()
    def cross_weights(
        self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]
    ) -> list[Float[Tensor, "B H T S"]]:
        """How much each target token looks at each source token, one table a head, layer by layer.

        Row t belongs to the scores of the token after target token t, as in ``forward``.
        """
        memory, mask = self.encode(source), padding_mask(source, self.config.pad_id)
        found: list[Tensor] = []

        def watch(layer: DecoderLayer) -> RemovableHandle:
            def asked(residual: nn.Module, arguments: tuple) -> tuple:
                x, sublayer = arguments

                def noted(h: Tensor) -> Tensor:
                    found.append(layer.cross_attention.weights(h, memory, mask))
                    return sublayer(h)

                return x, noted

            return layer.around_cross_attention.register_forward_pre_hook(asked)

        hooks = [watch(layer) for layer in self.decoder]
        try:
            self.decode(target, memory, source)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _state(self, memory: Tensor, source: Tensor) -> DecoderState:
        keys_values = [layer.cross_attention.keys_values(memory) for layer in self.decoder]
        return DecoderState(padding_mask(source, self.config.pad_id), keys_values)

    def _embed(self, tokens: Tensor, name: str, start: int) -> Tensor:
        end = start + tokens.shape[1]
        if end > self.config.max_len:
            raise ValueError(f"{name} rows may have max_len={self.config.max_len} tokens, got {end}")
        try:
            x = self.embed(tokens) * self.config.d_model**0.5  # section 3.4
        except IndexError:
            last = self.config.vocab_size - 1
            strange = next(i for i in tokens.flatten().tolist() if not 0 <= i <= last)
            raise ValueError(
                f"{name} holds the token {strange}; the vocabulary has ids from 0 to {last}"
            ) from None
        except RuntimeError:
            if tokens.dtype in (torch.int32, torch.int64):
                raise
            raise TypeError(f"{name} must hold whole-number ids, got {tokens.dtype}") from None
        x = x + self.positions[start:end]
        return self.dropout(x) if self.dropout.training else x  # one that is off costs a call all the same

    def _initialise(self) -> None:
        """Matrices keep the size of what passes (Glorot and Bengio, 2010); scores begin at about 1."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embed.weight, std=self.config.d_model**-0.5)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each with its skip connection and norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model=config.d_model, n_heads=config.n_heads)
        self.around_attention = _residual(config)
        self.feed_forward = _feed_forward(config)
        self.around_feed_forward = _residual(config)

    def forward(self, x: Float[Tensor, "B S D"], mask: Mask) -> Float[Tensor, "B S D"]:
        x = self.around_attention(x, lambda h: self.self_attention(h, h, mask))
        return self.around_feed_forward(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, a feed-forward network, each with its skip and norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model=config.d_model, n_heads=config.n_heads)
        self.around_self_attention = _residual(config)
        self.cross_attention = MultiHeadAttention(d_model=config.d_model, n_heads=config.n_heads)
        self.around_cross_attention = _residual(config)
        self.feed_forward = _feed_forward(config)
        self.around_feed_forward = _residual(config)

    def step(
        self,
        x: Float[Tensor, "B T D"],
        past: KeysValues | None,
        memory: KeysValues,
        mask: Tensor | None,  # (1, 1, T, target tokens up to now)
        source_mask: Mask | None,
    ) -> tuple[Float[Tensor, "B T D"], KeysValues]:
        """The next tokens through this layer; with them come the keys and values of all tokens up to now."""
        kept: list[KeysValues] = []

        def read_target(h: Tensor) -> Tensor:
            kept.append(_joined(past, self.self_attention.keys_values(h)))
            return self.self_attention.attend(h, *kept[0], mask)

        x = self.around_self_attention(x, read_target)
        x = self.around_cross_attention(x, lambda h: self.cross_attention.attend(h, *memory, source_mask))
        return self.around_feed_forward(x, self.feed_forward), kept[0]


def _residual(config: TransformerConfig) -> Residual:
    return Residual(config.d_model, placement=config.norm, norm=nn.LayerNorm, dropout=config.dropout)


def _feed_forward(config: TransformerConfig) -> FeedForward:
    return FeedForward(d_model=config.d_model, d_ff=config.d_ff, activation=config.activation)


def _joined(past: KeysValues | None, new: KeysValues) -> KeysValues:
    if past is None:
        return new
    return torch.cat([past[0], new[0]], dim=2), torch.cat([past[1], new[1]], dim=2)


def _rows(pair: KeysValues, index: Tensor) -> KeysValues:
    return pair[0][index], pair[1][index]
