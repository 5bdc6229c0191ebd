"""Other people's encoder-decoders, made of the same ``TransformerConfig`` and called as ours is.

Each reads ``(source, target)`` and gives scores (B, T, V); each embeds as the paper does, with one matrix for
source, target and scores, so that a comparison is of the layers alone. What a peer drops inside of attention
and of the feed-forward network is switched off: ours drops at the same places as the paper, and there only.
``load`` gives a peer the weights of one of ours; then both compute the same, and ``write`` writes what
``generation.greedy`` does. Only ours knows that nobody writes padding or a second beginning.
"""

import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.feed_forward import FeedForward
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

    @torch.no_grad()
    def write(self, source: Tensor, *, max_len: int) -> Tensor:
        """The likeliest token each time, so many of them: it does not look for an end."""
        state, written = self.start(source), [source.new_full((len(source), 1), self.config.bos_id)]
        for _ in range(max_len):
            written.append(self.step(written[-1], state)[:, -1:].argmax(dim=-1))
        return torch.cat(written[1:], dim=1)

    def load(self, ours: Transformer) -> None:
        """``ours`` must have the norms after the last layers, which ``nn.Transformer`` always has."""
        names = {
            r"^(en|de)coder_norm": r"layers.\1coder.norm",
            r"^(en|de)coder\.": r"layers.\1coder.layers.",
            r"around_(self_)?attention\.norm": "norm1",
            r"around_cross_attention\.norm": "norm2",
            r"(encoder.*)around_feed_forward\.norm": r"\1norm2",
            r"around_feed_forward\.norm": "norm3",
            "self_attention": "self_attn",
            "cross_attention": "multihead_attn",
            r"feed_forward\.up_proj": "linear1",
            r"feed_forward\.down_proj": "linear2",
        }
        state = _renamed(ours.state_dict(), names)
        for q in [name for name in state if ".q_proj." in name]:  # here one matrix makes all three
            parts = [state.pop(q.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            state[q.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        self.load_state_dict(state)

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


class HuggingFace(nn.Module):
    """Hugging Face's Pegasus (pre-norm, with a norm after each side's last layer) or Marian (post-norm)."""

    def __init__(self, config: TransformerConfig) -> None:
        import transformers

        super().__init__()
        pre = config.norm == "pre"
        if config.final_norm not in (None, pre):
            raise ValueError(
                "this peer has norms after the last layers with norm='pre' and only then, got"
                f" norm={config.norm!r} and final_norm={config.final_norm}"
            )
        kind, model = ("Pegasus", "PegasusForConditionalGeneration") if pre else ("Marian", "MarianMTModel")
        self.config = config
        sizes = {
            "layers": config.n_layers,
            "attention_heads": config.n_heads,
            "ffn_dim": config.d_ff,
        }
        self.model = getattr(transformers, model)(
            getattr(transformers, f"{kind}Config")(
                **{f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in sizes.items()},
                vocab_size=config.vocab_size,
                d_model=config.d_model,
                max_position_embeddings=config.max_len,
                activation_function=config.activation,
                scale_embedding=True,
                dropout=config.dropout,
                attention_dropout=0.0,
                activation_dropout=0.0,
                pad_token_id=config.pad_id,
                eos_token_id=config.eos_id,
                decoder_start_token_id=config.bos_id,
                forced_eos_token_id=None,
            )
        )

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        # The target's padding stands at its end, where a causal mask hides it from all real tokens.
        return self.model(
            input_ids=source, attention_mask=self._real(source), decoder_input_ids=target, use_cache=False
        ).logits

    def write(self, source: Tensor, *, max_len: int) -> Tensor:
        written = self.model.generate(
            source,
            attention_mask=self._real(source),
            max_new_tokens=max_len,
            num_beams=1,
            do_sample=False,
            use_cache=True,
        )
        return written[:, 1:]

    def load(self, ours: Transformer) -> None:
        names = {
            r"^embed\.": "model.shared.",
            r"^(en|de)coder_norm": r"model.\1coder.layer_norm",
            r"^(en|de)coder\.": r"model.\1coder.layers.",
            r"around_(self_)?attention\.norm": "self_attn_layer_norm",
            r"around_cross_attention\.norm": "encoder_attn_layer_norm",
            r"around_feed_forward\.norm": "final_layer_norm",
            "self_attention": "self_attn",
            "cross_attention": "encoder_attn",
            r"feed_forward\.up_proj": "fc1",
            r"feed_forward\.down_proj": "fc2",
        }
        state = _renamed(ours.state_dict(), names)
        # Its own sinusoids are ours in another order: first all sines, then all cosines.
        state |= {f"model.{side}.embed_positions.weight": ours.positions for side in ("encoder", "decoder")}
        self.model.load_state_dict(state, strict=False)  # the embedding has further names there

    def _real(self, source: Tensor) -> Tensor:
        return (source != self.config.pad_id).long()


class XTransformers(nn.Module):
    """The encoder-decoder of x-transformers, without any of its extras, around PyTorch's fused kernel.

    What could not be made equal: its projections of attention and its norms have no biases. What it reads of
    positions is a table that could be learned, here fixed to ours: its own sinusoids have a learned size.
    """

    def __init__(self, config: TransformerConfig) -> None:
        with warnings.catch_warnings():  # PyTorch says that torch.jit.script, which is used there, grows old
            warnings.simplefilter("ignore", DeprecationWarning)
            from x_transformers import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper

        super().__init__()
        _must_be_pre_norm(config)
        self.config = config
        layers = {
            "dim": config.d_model,
            "depth": config.n_layers,
            "heads": config.n_heads,
            "attn_dim_head": config.d_model // config.n_heads,
            "attn_flash": True,  # its name for scaled_dot_product_attention
            "attn_sublayer_dropout": config.dropout,  # also of attention to the source
            "ff_mult": config.d_ff / config.d_model,
            "ff_custom_activation": {"relu": nn.ReLU(), "gelu": nn.GELU()}[config.activation],
            "ff_sublayer_dropout": config.dropout,
        }
        around = {
            "num_tokens": config.vocab_size,
            "max_seq_len": config.max_len,
            "emb_dropout": config.dropout,
        }
        self.encoder = TransformerWrapper(**around, return_only_embed=True, attn_layers=Encoder(**layers))
        decoder = TransformerWrapper(
            **around,
            token_emb=self.encoder.token_emb,
            tie_embedding=True,
            attn_layers=Decoder(cross_attend=True, **layers),
        )
        for side in (self.encoder, decoder):
            positions = sinusoidal(config.max_len, config.d_model)
            side.pos_emb.emb.weight = nn.Parameter(positions * config.d_model**0.5, requires_grad=False)
        self.decoder = AutoregressiveWrapper(decoder, pad_value=config.pad_id)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        real = source != self.config.pad_id
        return self.decoder.net(target, context=self.encoder(source, mask=real), context_mask=real)

    @torch.no_grad()
    def write(self, source: Tensor, *, max_len: int) -> Tensor:
        real = source != self.config.pad_id
        return self.decoder.generate(
            source.new_full((len(source), 1), self.config.bos_id),
            max_len,
            eos_token=self.config.eos_id,
            temperature=0.0,  # greedy
            context=self.encoder(source, mask=real),
            context_mask=real,
        )

    @torch.no_grad()
    def load(self, ours: Transformer) -> None:
        """``ours`` must be fresh: biases that are not 0 have no place here."""
        self.encoder.token_emb.emb.weight.copy_(ours.embed.weight * self.config.d_model**0.5)
        sides = (
            (self.encoder, ours.encoder, ours.encoder_norm),
            (self.decoder.net, ours.decoder, ours.decoder_norm),
        )
        for its, layers, last_norm in sides:
            children = [child for layer in layers for child in layer.children()]
            parts = zip(children[::2], children[1::2], its.attn_layers.layers, strict=True)
            for part, residual, (norms, block, _) in parts:
                norms[0].gamma.copy_(residual.norm.weight - 1)  # it adds 1 to what it learns
                if isinstance(part, FeedForward):
                    block.ff[0][0].load_state_dict(part.up_proj.state_dict())
                    block.ff[2].load_state_dict(part.down_proj.state_dict())
                else:
                    for name in ("q", "k", "v", "out"):
                        getattr(block, f"to_{name}").load_state_dict(
                            {"weight": getattr(part, f"{name}_proj").weight}
                        )
            its.attn_layers.final_norm.gamma.copy_(last_norm.weight - 1)


def _must_be_pre_norm(config: TransformerConfig) -> None:
    if config.norm != "pre" or config.final_norm is False:
        raise ValueError(
            "this peer has its norms before the sub-layers and after the last layer, got"
            f" norm={config.norm!r} and final_norm={config.final_norm}"
        )


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same tensors: in each name, what a pattern finds is replaced, one pattern after the other."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, theirs in names.items():
            name = re.sub(pattern, theirs, name)
        renamed[name] = tensor
    return renamed
