"""Other people's encoder-decoders, made of the same ``TransformerConfig`` and called as ours is.

Each reads ``(source, target)`` and gives scores (B, T, V); each embeds as the paper does, with one matrix for
source, target and scores, so that a comparison is of the layers alone. What PyTorch drops inside of attention
and of the feed-forward network is switched off: ours drops at the same places as the paper, and there only.
"""

import torch
from torch import Tensor, nn

from transformer_lab.encoder_decoder import TransformerConfig
from transformer_lab.masks import causal_mask
from transformer_lab.positional import sinusoidal


class TorchTransformer(nn.Module):
    """``torch.nn.Transformer``. It has no cache: each ``step`` of writing reads the whole target again."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.register_buffer("positions", sinusoidal(config.max_len, config.d_model), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        sizes = (config.d_model, config.n_heads, config.d_ff, config.dropout, config.activation)
        settings = {"batch_first": True, "norm_first": config.norm == "pre"}
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **settings),
            config.n_layers,
            nn.LayerNorm(config.d_model),
            enable_nested_tensor=False,  # it warns that pre-norm layers do without
        )
        n = config.n_layers
        self.layers = nn.Transformer(*sizes[:2], n, n, *sizes[2:], custom_encoder=encoder, **settings)
        for module in self.layers.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout.p = 0.0

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.step(target, self.start(source))

    def start(self, source: Tensor) -> "Read":
        padding = source == self.config.pad_id
        return Read(self.layers.encoder(self._embed(source), src_key_padding_mask=padding), padding)

    def step(self, tokens: Tensor, state: "Read") -> Tensor:
        target = state.target = torch.cat([state.target, tokens], dim=1)
        n = target.shape[1]
        x = self.layers.decoder(
            self._embed(target),
            state.memory,
            tgt_mask=~causal_mask(n, device=target.device)[0, 0],  # there, True is blocked
            tgt_is_causal=True,
            tgt_key_padding_mask=target == self.config.pad_id,
            memory_key_padding_mask=state.padding,
        )
        return x[:, -tokens.shape[1] :] @ self.embed.weight.T

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) * self.config.d_model**0.5
        return self.dropout(x + self.positions[: tokens.shape[1]])


class Read:
    """A source, as the encoder understands it, and the target up to now."""

    def __init__(self, memory: Tensor, padding: Tensor, target: Tensor | None = None) -> None:
        self.memory, self.padding = memory, padding
        self.target = padding.new_empty(len(padding), 0, dtype=torch.long) if target is None else target

    def rows(self, index: Tensor) -> "Read":
        return Read(self.memory[index], self.padding[index], self.target[index])
