"""Caches: what a model keeps of the tokens before, so that a new one costs a row and not a table.

Grouped queries and latents make it small from the start, quantisation afterwards. Letters as in
``notation``: B batch, T new tokens, S kept tokens, D model width, H heads, G key/value heads, Dh head width;
here also Dc width of a latent, Dr of its rotary part. Sources: Shazeer (2019),
https://arxiv.org/abs/1911.02150 (multi-query); Ainslie et al. (2023), https://arxiv.org/abs/2305.13245
(grouped-query); DeepSeek-AI (2024), section 2.1, https://arxiv.org/abs/2405.04434 (latents).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import Rotary, at_the_end, check_heads, check_mask, check_pair, check_width, split_heads
from ..masks import causal_mask
from ..norms import RMSNorm
from ..notation import Mask
from ..positional import rotate
from . import check_sizes


class KeyValueCache:
    """Keys and values of all tokens so far, in room that is reserved once.

    Args:
        n_batch: sequences B; n_kv_heads: key/value heads G.
        max_len: tokens that there is room for; d_head: width Dh.
        d_value: width of a value, if it is another one than that of a key.
        dtype: of keys and values; by default PyTorch's default. device: where to keep them.

    Raises:
        ValueError: a size below 1.

    >>> cache = KeyValueCache(1, 2, max_len=10, d_head=4)
    >>> keys, values = cache.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> keys.shape, cache.length, cache.nbytes
    (torch.Size([1, 2, 3, 4]), 3, 640)
    """

    def __init__(
        self,
        n_batch: int,
        n_kv_heads: int,
        max_len: int,
        d_head: int,
        *,
        d_value: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        d_value = d_head if d_value is None else d_value
        check_sizes(n_batch=n_batch, n_kv_heads=n_kv_heads, max_len=max_len, d_head=d_head, d_value=d_value)
        room = n_batch, n_kv_heads, max_len
        self.keys = torch.zeros(*room, d_head, dtype=dtype, device=device)
        self.values = torch.zeros(*room, d_value, dtype=dtype, device=device)
        self.length = 0  # tokens kept

    @property
    def nbytes(self) -> int:
        """Of all the room, filled or not."""
        return self.keys.nbytes + self.values.nbytes

    @torch.no_grad()
    def append(
        self, keys: Float[Tensor, "B G T Dh"], values: Float[Tensor, "B G T Dv"]
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dv"]]:
        """Keep T more tokens. A cache is for writing, not for training: no gradient flows through it.

        Returns:
            Keys and values of all tokens so far. They are views: what is appended later does not change them.

        Raises:
            ValueError: shapes that do not fit, or more tokens than there is room for.
            TypeError: numbers of another kind than the cache's.
        """
        new = _place(self.length, keys, values, self.keys, self.values)
        for name, given in (("keys", keys), ("values", values)):
            if given.dtype != self.keys.dtype:
                raise TypeError(f"{name} must be {self.keys.dtype} as the cache is, got {given.dtype}")
        self.keys[:, :, new], self.values[:, :, new] = keys, values
        self.length = new.stop
        return self.keys[:, :, : new.stop], self.values[:, :, : new.stop]


class QuantisedCache:
    """A ``KeyValueCache`` in whole numbers of 8 or 4 bits, with a scale for each token and head.

    What it gives back is off by half a step at most, and a step is 1/127 (8 bits) or 1/7 (4 bits) of the
    largest number of that token and head. It is made anew at each ``append``: this saves room, not time.

    Args:
        n_batch, n_kv_heads, max_len, d_head, d_value, device: as in ``KeyValueCache``.
        bits: 8, or 4: then two numbers share a byte.

    Raises:
        ValueError: a size below 1, other bits, or 4 bits with an odd width.

    >>> QuantisedCache(1, 2, max_len=10, d_head=4, bits=4).nbytes  # 2 bytes, and 4 for the scale
    240
    """

    def __init__(
        self,
        n_batch: int,
        n_kv_heads: int,
        max_len: int,
        d_head: int,
        *,
        d_value: int | None = None,
        bits: Literal[8, 4] = 8,
        device: torch.device | str | None = None,
    ) -> None:
        d_value = d_head if d_value is None else d_value
        check_sizes(n_batch=n_batch, n_kv_heads=n_kv_heads, max_len=max_len, d_head=d_head, d_value=d_value)
        _check_bits(bits, d_head, d_value)
        self.bits, self.length = bits, 0
        room = n_batch, n_kv_heads, max_len
        kind = torch.int8 if bits == 8 else torch.uint8
        self.keys = torch.zeros(*room, d_head * bits // 8, dtype=kind, device=device)
        self.values = torch.zeros(*room, d_value * bits // 8, dtype=kind, device=device)
        self.key_scales = torch.zeros(*room, dtype=torch.float32, device=device)
        self.value_scales = torch.zeros_like(self.key_scales)

    @property
    def nbytes(self) -> int:
        """Of all the room, filled or not, with the scales."""
        return sum(t.nbytes for t in (self.keys, self.values, self.key_scales, self.value_scales))

    @torch.no_grad()
    def append(
        self, keys: Float[Tensor, "B G T Dh"], values: Float[Tensor, "B G T Dv"]
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dv"]]:
        """As ``KeyValueCache.append``; what comes back is of the kind that is given, and rounded.

        Raises:
            ValueError: shapes that do not fit, or more tokens than there is room for.
        """
        new = _place(self.length, keys, values, self.keys, self.values, per_byte=8 // self.bits)
        self.keys[:, :, new], self.key_scales[:, :, new] = quantise(keys, self.bits)
        self.values[:, :, new], self.value_scales[:, :, new] = quantise(values, self.bits)
        self.length = new.stop
        filled = slice(self.length)
        return (
            dequantise(self.keys[:, :, filled], self.key_scales[:, :, filled]).to(keys.dtype),
            dequantise(self.values[:, :, filled], self.value_scales[:, :, filled]).to(values.dtype),
        )


def quantise(
    x: Float[Tensor, "... Dh"], bits: Literal[8, 4] = 8
) -> tuple[Int8[Tensor, "... Dh"] | UInt8[Tensor, "... P"], Float[Tensor, "..."]]:
    """Each row as whole multiples of a step, which is 1/127 (8 bits) or 1/7 (4 bits) of its largest number.

    Returns:
        The multiples and the steps, which are float32. With 4 bits P = Dh / 2 bytes hold two multiples each,
        8 added to both; the first is in the lower half.

    Raises:
        ValueError: other bits, or 4 bits with an odd width.

    >>> quantise(torch.tensor([0.5, -1.27]))[0].tolist()
    [50, -127]
    >>> quantise(torch.tensor([3.0, -7.0]), bits=4)[0].tolist()  # 3 + 8, and -7 + 8 in the upper half
    [27]
    """
    _check_bits(bits, x.shape[-1])
    most = 2 ** (bits - 1) - 1
    steps = (x.abs().amax(dim=-1) / most).float()
    whole = (x / steps[..., None].masked_fill(steps[..., None] == 0, 1.0)).round()
    whole = whole.clamp(-most, most).to(torch.int8)
    if bits == 8:
        return whole, steps
    low, high = (whole + 8).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low | high << 4, steps


def dequantise(
    whole: Int8[Tensor, "... Dh"] | UInt8[Tensor, "... P"], steps: Float[Tensor, "..."]
) -> Float[Tensor, "... Dh"]:
    """The numbers that ``quantise`` kept; 4 bits are known by their unsigned bytes.

    >>> dequantise(*quantise(torch.tensor([3.0, -7.0]), bits=4)).tolist()
    [3.0, -7.0]
    """
    if whole.dtype == torch.uint8:
        whole = torch.stack([whole & 15, whole >> 4], dim=-1).flatten(-2).to(torch.int8) - 8
    return whole * steps[..., None]


class GroupedQueryAttention(nn.Module):
    """Attention with G keys and values for H queries: each serves a group of H / G query heads in turn.

    G = H is multi-head attention, G = 1 multi-query attention (Shazeer, 2019).
    Source: Ainslie et al. (2023), section 2.2, https://arxiv.org/abs/2305.13245.

    Args:
        d_model: model width D, a multiple of ``n_heads``.
        n_heads: query heads H, a multiple of ``n_kv_heads``.
        n_kv_heads: key/value heads G.
        rotary: turns queries and keys by their positions, called as ``rotary(x, positions)``; the last query
            stands at the last key.
        bias: whether projections have one, as in ``MultiHeadAttention``; LLaMA's have none.

    Raises:
        ValueError: sizes that do not divide each other.

    >>> x = torch.zeros(1, 3, 8)
    >>> GroupedQueryAttention(d_model=8, n_heads=4, n_kv_heads=2)(x, x).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, *, d_model: int, n_heads: int, n_kv_heads: int, rotary: Rotary | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"n_heads must be a multiple of n_kv_heads, got {n_heads} and {n_kv_heads}")
        self.d_model, self.n_heads, self.n_kv_heads, self.rotary = d_model, n_heads, n_kv_heads, rotary
        self.d_head = d_model // n_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * self.d_head, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * self.d_head, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Float[Tensor, "B S D"], mask: Mask | None = None
    ) -> Float[Tensor, "B T D"]:
        """``x`` asks, ``context`` answers; pass ``x`` twice for self-attention.

        Raises:
            ValueError: ``x`` or ``context`` is not (batch, tokens, d_model), or their batches differ.
        """
        check_pair(x, context, self.d_model)
        return self._attend(x, *self.keys_values(context), mask)

    def keys_values(
        self, context: Float[Tensor, "B S D"], *, start: int = 0
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dh"]]:
        """What ``context`` answers with, and what a cache keeps.

        Args:
            context: what is to be asked; start: the position of its first token, which only ``rotary`` reads.
        """
        keys, values = (split_heads(p(context), self.n_kv_heads) for p in (self.k_proj, self.v_proj))
        if self.rotary is not None:
            keys = self.rotary(keys, torch.arange(start, start + keys.shape[2], device=keys.device))
        return keys, values

    def start(self, n_batch: int, max_len: int) -> KeyValueCache:
        """An empty cache with room for ``max_len`` tokens, of the kind of the weights."""
        like = self.k_proj.weight
        return KeyValueCache(
            n_batch, self.n_kv_heads, max_len, self.d_head, dtype=like.dtype, device=like.device
        )

    @torch.no_grad()
    def step(
        self, x: Float[Tensor, "B T D"], cache: KeyValueCache | QuantisedCache
    ) -> Float[Tensor, "B T D"]:
        """T tokens more, which are added to ``cache``: what ``forward`` gives for them below a causal mask.

        Without gradients, as it is for writing. T is the prompt's length at first, and then 1.

        Raises:
            ValueError: ``x`` is not (batch, tokens, d_model), or the cache is full or of other sizes.
            TypeError: a cache of other numbers than the weights.
        """
        check_width("x", x, self.d_model)
        keys, values = cache.append(*self.keys_values(x, start=cache.length))
        return self._attend(x, keys, values, _seen(x, cache.length))

    def _attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        q = split_heads(self.q_proj(x), self.n_heads)
        if self.rotary is not None:
            q = at_the_end(q, keys.shape[2], self.rotary)
        if mask is None:  # all see all: the queries of a group stand in one row, and their keys are read once
            q = q.unflatten(1, (self.n_kv_heads, -1))  # (B, G, H / G, T, Dh)
            y = F.scaled_dot_product_attention(q.flatten(2, 3), keys, values)
            y = y.unflatten(2, q.shape[2:4]).flatten(1, 2)  # (B, H, T, Dh)
        else:
            check_mask(mask, None, (*q.shape[:-1], keys.shape[2]))
            y = F.scaled_dot_product_attention(q, keys, values, mask, enable_gqa=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, H, T, Dh) -> (B, T, D)


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values of all heads are made from one short latent per token.

    Only the latent is kept, and a rotary key that all heads share: Dc + Dr numbers instead of 2 H Dh. RoPE
    needs this part of its own, since a rotation between W^Q and W^UK would keep them from being multiplied
    together. Source: DeepSeek-AI (2024), section 2.1, https://arxiv.org/abs/2405.04434. As in its smaller
    model, V2-Lite, queries are not compressed. The norm of the latent is that of section 3.1.2.

    Args:
        d_model: model width D.
        n_heads: heads H.
        d_head: width Dh of a head, its rotary part not counted.
        d_latent: Dc; d_rope: Dr, an even number.
        rotary: turns the rotary parts by their positions. DeepSeek's weights are made for
            ``partial(rotate, layout="interleaved")``.

    Raises:
        ValueError: a size below 1.

    >>> x = torch.zeros(1, 3, 8)
    >>> LatentAttention(d_model=8, n_heads=4, d_head=6, d_latent=5, d_rope=2)(x, x).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_head: int,
        d_latent: int,
        d_rope: int,
        rotary: Rotary = rotate,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_heads=n_heads, d_head=d_head, d_latent=d_latent, d_rope=d_rope)
        self.d_model, self.n_heads, self.d_head = d_model, n_heads, d_head
        self.d_latent, self.d_rope, self.rotary = d_latent, d_rope, rotary
        self.q_proj = nn.Linear(d_model, n_heads * (d_head + d_rope), bias=False)  # W^Q and W^QR
        self.latent_proj = nn.Linear(d_model, d_latent, bias=False)  # W^DKV
        self.latent_norm = RMSNorm(d_latent)
        self.rope_proj = nn.Linear(d_model, d_rope, bias=False)  # W^KR
        self.k_proj = nn.Linear(d_latent, n_heads * d_head, bias=False)  # W^UK
        self.v_proj = nn.Linear(d_latent, n_heads * d_head, bias=False)  # W^UV
        self.out_proj = nn.Linear(n_heads * d_head, d_model, bias=False)  # W^O

    def forward(
        self, x: Float[Tensor, "B T D"], context: Float[Tensor, "B S D"], mask: Mask | None = None
    ) -> Float[Tensor, "B T D"]:
        """``x`` asks, ``context`` answers, with keys and values of every head written out.

        Raises:
            ValueError: ``x`` or ``context`` is not (batch, tokens, d_model), or their batches differ.
        """
        check_pair(x, context, self.d_model)
        rotary_key, latent = self.latents(context)
        keys, values = (
            split_heads(projection(latent[:, 0]), self.n_heads) for projection in (self.k_proj, self.v_proj)
        )  # (B, H, S, Dh)
        keys = torch.cat([keys, rotary_key.expand(-1, self.n_heads, -1, -1)], dim=-1)
        queries = torch.cat(self._queries(x, keys.shape[2]), dim=-1)
        if mask is not None:
            check_mask(mask, None, (*queries.shape[:-1], keys.shape[2]))
        y = F.scaled_dot_product_attention(queries, keys, values, mask)  # scaled by √(Dh + Dr)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def latents(
        self, context: Float[Tensor, "B S D"], *, start: int = 0
    ) -> tuple[Float[Tensor, "B 1 S Dr"], Float[Tensor, "B 1 S Dc"]]:
        """What a cache keeps: the rotary key, in the place of keys, and the latent, in that of values.

        Args:
            context: what is to be asked; start: the position of its first token.
        """
        positions = torch.arange(start, start + context.shape[1], device=context.device)
        rotary_key = self.rotary(self.rope_proj(context)[:, None], positions)
        return rotary_key, self.latent_norm(self.latent_proj(context))[:, None]

    def start(self, n_batch: int, max_len: int) -> KeyValueCache:
        """An empty cache with room for ``max_len`` tokens, of the kind of the weights."""
        like = self.k_proj.weight
        return KeyValueCache(
            n_batch, 1, max_len, self.d_rope, d_value=self.d_latent, dtype=like.dtype, device=like.device
        )

    @torch.no_grad()
    def step(
        self, x: Float[Tensor, "B T D"], cache: KeyValueCache | QuantisedCache
    ) -> Float[Tensor, "B T D"]:
        """T tokens more, which are added to ``cache``: what ``forward`` gives for them below a causal mask.

        No key and no value is written out. q · (W^UK c) is (W^UKᵀ q) · c, so the query goes to the latents;
        and a sum of W^UV c is W^UV times the sum of c, so the output comes back from them. Of that, latents
        are the keys and the values of all heads: it is multi-query attention.

        Raises:
            ValueError: ``x`` is not (batch, tokens, d_model), or the cache is full or of other sizes.
            TypeError: a cache of other numbers than the weights.
        """
        check_width("x", x, self.d_model)
        rotary_key, latent = cache.append(*self.latents(x, start=cache.length))
        rotary_key, latent = rotary_key[:, 0], latent[:, 0]  # (B, S, Dr), (B, S, Dc)
        up_k, up_v = (p.weight.unflatten(0, (self.n_heads, -1)) for p in (self.k_proj, self.v_proj))
        q, rotary_q = self._queries(x, latent.shape[1])
        q = torch.einsum("bhte,hec->bhtc", q, up_k)
        scores = torch.einsum("bhtc,bsc->bhts", q, latent) + torch.einsum(
            "bhtr,bsr->bhts", rotary_q, rotary_key
        )
        scores = scores * (self.d_head + self.d_rope) ** -0.5
        seen = _seen(x, latent.shape[1])
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        y = torch.einsum("bhts,bsc->bhtc", scores.softmax(dim=-1), latent)
        y = torch.einsum("bhtc,hec->bhte", y, up_v)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def _queries(self, x: Tensor, n_keys: int) -> tuple[Tensor, Tensor]:
        """(B, H, T, Dh) and the rotary part, (B, H, T, Dr)."""
        q, rotary_q = split_heads(self.q_proj(x), self.n_heads).split([self.d_head, self.d_rope], dim=-1)
        return q, at_the_end(rotary_q, n_keys, self.rotary)


def _seen(x: Tensor, n_keys: int) -> Tensor | None:
    """Which of the kept tokens the new ones see: a lone one sees all."""
    return None if x.shape[1] == 1 else causal_mask(x.shape[1], n_keys, device=x.device)


def _place(
    length: int, keys: Tensor, values: Tensor, kept_keys: Tensor, kept_values: Tensor, *, per_byte: int = 1
) -> slice:
    """Where the new tokens go."""
    n_batch, n_kv_heads, max_len, _ = kept_keys.shape
    for name, given, kept in (("keys", keys, kept_keys), ("values", values, kept_values)):
        wanted = n_batch, n_kv_heads, keys.shape[-2], kept.shape[-1] * per_byte
        if given.shape != wanted:
            raise ValueError(f"{name} must be (B, G, T, width) = {wanted}, got {tuple(given.shape)}")
    if length + keys.shape[2] > max_len:
        raise ValueError(
            f"the cache has room for max_len={max_len} tokens and holds {length}; got {keys.shape[2]} more"
        )
    return slice(length, length + keys.shape[2])


def _check_bits(bits: int, *widths: int) -> None:
    if bits not in (8, 4):
        raise ValueError(f"bits must be 8 or 4, got {bits}")
    for width in widths:
        if bits == 4 and width % 2:
            raise ValueError(f"4 bits go two to a byte, so the width must be even, got {width}")
