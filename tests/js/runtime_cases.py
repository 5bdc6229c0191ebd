"""What PyTorch computes, for runtime.js and layers.js: many shapes, and inputs at which careless code breaks.

All in double precision, so that a difference is JavaScript's. Where weights travel as float32 or int8,
PyTorch computes with what the export made of them.
"""

import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transformer_lab.attention import MultiHeadAttention, attention
from transformer_lab.masks import causal_mask, padding_mask
from transformer_lab.widgets._asset import export_model, exported_weights

HUGE = 1e30


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def plain(value):
    """Tensors become lists; JSON knows the rest."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def rows_cases() -> list[Tensor]:
    """Rows for norms and activations, from dull to absurd."""
    shapes = [(1, 1), (3, 2), (2, 7), (5, 16)]
    scaled = [scale * randn(*shape) for shape in shapes for scale in (1e-8, 1e-3, 1.0, 50.0, 1e4)]
    return [*scaled, torch.zeros(2, 3).double(), torch.full((1, 4), 1e4).double() + randn(1, 4) * 1e-6,
            torch.tensor([[HUGE, -HUGE, 1.0]]).double(), torch.full((2, 5), -7.25).double()]  # fmt: skip


def softmax_cases():
    lone, bottom = (torch.tensor(row, dtype=torch.float64) for row in ([-math.inf, 3.0], [-1e300, 1e300]))
    for scores in [*(row for x in rows_cases() for row in x), randn(600) * 20, bottom]:
        yield {"scores": scores, "weights": scores.softmax(0)}
    yield {"scores": ["-Infinity", 3.0], "weights": lone.softmax(0)}
    yield {"scores": ["-Infinity"] * 3, "weights": [0, 0, 0]}  # PyTorch says NaN, the package 0


def norm_cases():
    for x in rows_cases():
        width = x.shape[-1]
        weight, bias, eps = randn(width), randn(width), random.choice([1e-6, 1e-5, 1e-2])
        yield {
            "x": x,
            "weight": weight,
            "bias": bias,
            "eps": eps,
            "layer": nn.LayerNorm(width, dtype=torch.float64)(x),
            "layerAll": F.layer_norm(x, (width,), weight, bias, eps),
            "layerNoBias": F.layer_norm(x, (width,), weight, None, eps),
            "rms": nn.RMSNorm(width, eps=1e-6, dtype=torch.float64)(x),
            "rmsAll": F.rms_norm(x, (width,), weight, eps),
        }


def activation_cases():
    far = torch.tensor([0.0, 1e-30, 1e-8, 40.0, 1e4, HUGE]).double()
    x = torch.cat([torch.linspace(-12, 12, 4801).double(), far, -far])
    return {
        "x": x,
        "relu": x.relu(),
        "gelu": F.gelu(x),
        "geluTanh": F.gelu(x, approximate="tanh"),
        "silu": F.silu(x),
        "erf": torch.special.erf(x),
    }


def product_cases():
    for T, S, D in [(1, 1, 1), (2, 3, 4), (5, 1, 2), (1, 8, 3), (4, 6, 1), (7, 5, 9)]:
        for scale in (1.0, 1e4, HUGE):
            a, b, weight, bias = scale * randn(T, S), randn(S, D), randn(D, S), randn(D)
            yield {
                "a": a,
                "b": b,
                "weight": weight,
                "bias": bias,
                "product": a @ b,
                "linear": F.linear(a, weight, bias),
                "linearNoBias": F.linear(a, weight),
            }


def embedding_cases():
    for V, D in [(1, 1), (5, 3), (9, 2)]:
        table, ids = randn(V, D), torch.randint(V, (6,))
        x = F.embedding(ids, table)
        yield {"table": table, "ids": ids, "x": x, "logits": F.linear(x, table)}


def masks(T: int, S: int) -> dict[str, Tensor]:
    """(T, S) or (1, S) masks: ordinary ones, rows that see nothing, and nothing at all."""
    holes = torch.rand(T, S) < 0.5
    holes[-1] = False
    padding = padding_mask(torch.tensor([[*[5] * (S - S // 2), *[0] * (S // 2)]]), 0)[0, 0]
    return {
        "causal": causal_mask(T, S)[0, 0],
        "padding": padding,
        "both": causal_mask(T, S)[0, 0] & padding,
        "holes": holes,
        "nothing": torch.zeros(1, S, dtype=torch.bool),
        "everything": torch.ones(T, S, dtype=torch.bool),
    }


def attention_cases():
    for T, S, width, value_width in [(1, 1, 1, 1), (3, 5, 4, 2), (5, 3, 2, 4), (4, 1, 6, 3), (1, 6, 3, 3)]:
        for scale in (1.0, 1e4, HUGE):
            q, k, v = scale * randn(T, width), randn(S, width), randn(S, value_width)
            for mask in (None, *masks(T, S).values()):
                for bias in (None, randn(T, S) * 3, randn(1, S)):
                    output, weights = attention(q, k, v, mask, bias=bias)
                    yield {
                        "q": q,
                        "k": k,
                        "v": v,
                        "mask": mask,
                        "bias": bias,
                        "output": output,
                        "weights": weights,
                    }
    q, k, v = torch.zeros(2, 3).double(), randn(4, 3), randn(4, 2)  # equal scores: the average
    output, weights = attention(q, k, v)
    yield {"q": q, "k": k, "v": v, "mask": None, "bias": None, "output": output, "weights": weights}


def fused_cases():
    """PyTorch's own kernel, on masks under which every query sees something."""
    for T, S, heads, width in [(1, 1, 1, 1), (3, 4, 2, 3), (4, 4, 8, 1), (2, 5, 3, 2)]:
        q, k, v = randn(T, heads * width), randn(S, heads * width), randn(S, heads * width)
        for mask in (None, torch.rand(T, S) < 0.5, torch.rand(1, S) < 0.5):
            for bias in (None, randn(heads, T, S)):
                if mask is not None:
                    mask[:, 0] = True
                allowed = mask
                if bias is not None:
                    allowed = bias if mask is None else bias.masked_fill(~mask, -math.inf)
                split = (x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (q, k, v))
                output = F.scaled_dot_product_attention(*split, allowed)[0].transpose(0, 1).flatten(1)
                yield {"q": q, "k": k, "v": v, "heads": heads, "mask": mask, "bias": bias, "output": output}


def mask_cases():
    for queries, keys in [(1, 1), (3, 3), (1, 4), (2, 4), (4, 2), (0, 3)]:
        yield {"queries": queries, "keys": keys, "mask": causal_mask(queries, keys)[0, 0]}


def multi_head_cases():
    for dtype in ("float32", "int8"):
        for D, heads, T, S in [(4, 1, 3, 5), (6, 2, 1, 1), (8, 8, 4, 2), (12, 3, 2, 7)]:
            for scale in (0.5, 100.0):
                layer = MultiHeadAttention(d_model=D, n_heads=heads)
                nn.init.normal_(layer.q_proj.weight, std=scale)
                parameters = tree(layer, dtype)
                x, context = randn(1, T, D), randn(1, S, D)
                for mask in (None, *masks(T, S).values()):
                    bias = randn(1, heads, T, S)
                    output, weights = (
                        layer(x, context, mask, bias=bias),
                        layer.weights(x, context, mask, bias=bias),
                    )
                    yield {
                        "parameters": parameters,
                        "heads": heads,
                        "x": x[0],
                        "context": context[0],
                        "mask": mask,
                        "bias": bias[0],
                        "output": output[0],
                        "weights": weights[0],
                    }


def position_cases():
    """Angles written out, and RoPE as a product of complex numbers."""
    for position, width, base in [(0, 4, 1e4), (1, 2, 1e4), (7, 6, 100.0), (2047, 8, 1e4)]:
        frequencies = base ** -(torch.arange(0, width, 2).double() / width)
        turn = torch.polar(torch.ones(width // 2).double(), position * frequencies)
        row = randn(width)
        pairs = torch.view_as_real(torch.view_as_complex(row.unflatten(0, (-1, 2))) * turn)
        half = torch.complex(*row.chunk(2)) * turn
        yield {
            "position": position,
            "base": base,
            "row": row,
            "sinusoid": torch.stack([turn.imag, turn.real], 1).flatten(),
            "interleaved": pairs.flatten(),
            "half": torch.cat([half.real, half.imag]),
        }


# Layers. PyTorch keeps q, k and v in one matrix; the browser has the package's names.


def tree(module: nn.Module, dtype: str) -> dict:
    """The tensors of ``module`` as exported; it gets the exported numbers itself, in double precision."""
    module.float()
    data = export_model(module, config={}, vocabulary=(), dtype=dtype)
    module.load_state_dict(exported_weights(data))
    module.double().eval()
    return data["tensors"]


class Parts(nn.Module):
    """The parameters of a PyTorch layer or stack under the browser's names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if hasattr(module, "layers"):
            self.layers = nn.ModuleList(Parts(layer) for layer in module.layers)
            if module.norm is not None:
                self.norm = module.norm
            return
        self.self_attention = projections(module.self_attn)
        self.feed_forward = nn.ModuleDict({"up": module.linear1, "down": module.linear2})
        names = ["norm1", "norm2"]
        if hasattr(module, "multihead_attn"):
            self.cross_attention = projections(module.multihead_attn)
            names.append("norm3")
        for name in names:
            self.add_module(name, getattr(module, name))


def projections(theirs: nn.MultiheadAttention) -> nn.ModuleDict:
    D = theirs.embed_dim
    parts = nn.ModuleDict({f"{name}_proj": nn.Linear(D, D) for name in ("q", "k", "v")})
    for n, part in enumerate(parts.values()):
        part.weight.data, part.bias.data = (
            theirs.in_proj_weight.data[n * D :][:D],
            theirs.in_proj_bias.data[n * D :][:D],
        )
    parts["out_proj"] = theirs.out_proj
    return parts


def shaken(module: nn.Module) -> nn.Module:
    """Biases and norms begin at 0 and 1, where a mistake would not show."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module.double().eval()


def stack_cases():
    """Encoder and decoder of every style; padding in the source, and one sentence of length 1."""
    for dtype in ("float64", "float32", "int8"):
        for norm_first in (True, False):
            for activation in ("relu", "gelu"):
                for D, heads, F_, L, S, T in [(4, 1, 6, 1, 1, 1), (8, 2, 5, 2, 6, 5), (6, 6, 12, 3, 3, 4)]:
                    style = dict(
                        dim_feedforward=F_, activation=activation, norm_first=norm_first, dropout=0.0
                    )
                    yield stack_case(dtype, D, heads, L, S, T, style)


def stack_case(dtype, D, heads, L, S, T, style) -> dict:
    last = nn.LayerNorm(D) if style["norm_first"] else None
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, heads, batch_first=True, **style), L, last, enable_nested_tensor=False
    )
    last = nn.LayerNorm(D) if style["norm_first"] else None
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, heads, batch_first=True, **style), L, last)
    parameters = {}
    for name, stack in (("encoder", shaken(encoder)), ("decoder", shaken(decoder))):
        parts = Parts(stack).double()
        if dtype == "float64":
            parameters[name] = {"float64": dict(parts.state_dict())}
        else:
            parameters[name] = tree(parts, dtype)
            for theirs, ours in zip(stack.layers, parts.layers, strict=True):
                put_back(theirs.self_attn, ours.self_attention)
                if name == "decoder":
                    put_back(theirs.multihead_attn, ours.cross_attention)
    real = torch.arange(S) < max(1, S - 2)
    x, y = randn(1, S, D), randn(1, T, D)
    encoded = encoder(x, src_key_padding_mask=~real[None])  # in PyTorch, True = may not
    decoded = decoder(
        y, encoded, tgt_mask=~causal_mask(T)[0, 0], memory_key_padding_mask=~real[None], tgt_is_causal=False
    )
    return {
        "parameters": parameters,
        "heads": heads,
        "normFirst": style["norm_first"],
        "activation": style["activation"],
        "real": real[None],
        "x": x[0],
        "y": y[0],
        "encoded": encoded[0],
        "decoded": decoded[0],
    }


def put_back(theirs: nn.MultiheadAttention, ours: nn.ModuleDict) -> None:
    """What the export made of q, k and v, into PyTorch's one matrix."""
    for kind in ("weight", "bias"):
        joined = torch.cat([getattr(ours[f"{name}_proj"], kind).data for name in ("q", "k", "v")])
        getattr(theirs, f"in_proj_{kind}").data = joined


def gated_cases():
    """SwiGLU."""
    for D, width in [(2, 3), (6, 10)]:
        up, gate, down = nn.Linear(D, width), nn.Linear(D, width, bias=False), nn.Linear(width, D)
        parts = nn.ModuleDict({"up": up, "gate": gate, "down": down})
        parameters = tree(parts, "float32")
        x = randn(4, D)
        yield {"parameters": parameters, "x": x, "output": down(F.silu(gate(x)) * up(x))}


def rotary_cases():
    """A layer of Llama's kind: RMS norm first, rotary positions, SwiGLU, causal."""

    def rotary(x: Tensor, positions: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angle = positions[:, None] * 10_000.0 ** -(torch.arange(half).double() / half)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    for D, heads, T in [(4, 1, 1), (8, 2, 5), (12, 2, 3)]:
        layer = MultiHeadAttention(d_model=D, n_heads=heads, rotary=rotary)
        norm1, norm2 = nn.RMSNorm(D, eps=1e-6), nn.RMSNorm(D, eps=1e-6)
        ff = nn.ModuleDict({"up": nn.Linear(D, 7), "gate": nn.Linear(D, 7), "down": nn.Linear(7, D)})
        parts = nn.ModuleDict({"self_attention": layer, "norm1": norm1, "norm2": norm2, "feed_forward": ff})
        parameters = tree(shaken(parts), "float32")
        x = randn(1, T, D)
        z = norm1(x)
        y = x + layer(z, z, causal_mask(T))
        z = norm2(y)
        y = y + ff["down"](F.silu(ff["gate"](z)) * ff["up"](z))
        yield {"parameters": parameters, "heads": heads, "x": x[0], "output": y[0]}


def quantised_cases():
    """A matrix as it was, as the export rounded it, and how far that may be."""
    row = torch.randn(3, 8)
    tables = [
        row,
        row * HUGE,
        row * 1e-30,
        torch.zeros(2, 3),
        torch.tensor([[0.0, 0.0], [1.0, -127.0], [3e-45, 0]]),
    ]
    for table in [*tables, torch.randn(5, 1), torch.randn(1, 64) * 10 ** torch.linspace(-6, 0, 64)]:
        layer = nn.Linear(table.shape[1], table.shape[0], bias=False)
        layer.weight.data = table
        data = export_model(layer, config={}, vocabulary=(), dtype="int8")
        bound = table.abs().amax(1) / 254 * (1 + 1e-5) + 1e-43
        yield {
            "tensor": data["tensors"]["weight"],
            "exact": table.double(),
            "rounded": exported_weights(data)["weight"].double(),
            "bound": bound.double(),
        }


def runtime_cases() -> dict:
    torch.manual_seed(0)
    random.seed(0)
    with torch.no_grad():
        return plain(
            {
                "softmax": list(softmax_cases()),
                "norms": list(norm_cases()),
                "activations": activation_cases(),
                "products": list(product_cases()),
                "embeddings": list(embedding_cases()),
                "attention": list(attention_cases()),
                "fused": list(fused_cases()),
                "causal": list(mask_cases()),
                "multiHead": list(multi_head_cases()),
                "positions": list(position_cases()),
                "stacks": list(stack_cases()),
                "gated": list(gated_cases()),
                "rotary": list(rotary_cases()),
                "quantised": list(quantised_cases()),
            }
        )
