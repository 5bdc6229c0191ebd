"""The exercises of "Positions": other right answers, and what its checks say beyond the contract."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from transformer_lab.attention import attention
from transformer_lab.exercises import positional as ex
from transformer_lab.masks import causal_mask
from transformer_lab.positional import alibi_bias, alibi_slopes, change_layout, rotate, sinusoidal

# --- right answers in other words ----------------------------------------------------------------------


def sinusoid_by_loops(positions, d_model):
    rows = []
    for t in positions:
        row = []
        for i in range(d_model // 2):
            angle = t / 10000 ** (2 * i / d_model)
            row += [torch.sin(angle), torch.cos(angle)]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def sinusoid_filled_in(positions, d_model):
    table = positions.new_zeros(len(positions), d_model)
    rates = torch.exp(torch.arange(0, d_model, 2) * (-np.log(10000.0) / d_model))  # float32, as many write it
    table[:, 0::2] = torch.sin(positions[:, None] * rates)
    table[:, 1::2] = torch.cos(positions[:, None] * rates)
    return table


def sinusoid_by_outer(positions, d_model):
    angles = torch.outer(
        positions, 1 / 10000 ** (torch.arange(d_model // 2).double() * 2 / d_model).to(positions)
    )
    return torch.view_as_real(torch.polar(torch.ones_like(angles), torch.pi / 2 - angles)).flatten(1)


def shift_by_loops(offset, rates):
    D = 2 * len(rates)
    matrix = rates.new_zeros(D, D)
    for i, rate in enumerate(rates):
        b = offset * rate
        matrix[2 * i, 2 * i], matrix[2 * i, 2 * i + 1] = b.cos(), b.sin()
        matrix[2 * i + 1, 2 * i], matrix[2 * i + 1, 2 * i + 1] = -b.sin(), b.cos()
    return matrix


def shift_by_matrix_power(offset, rates):
    cos, sin = rates.cos(), rates.sin()
    one = torch.block_diag(*torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])]).permute(2, 0, 1))
    return torch.linalg.matrix_power(one, offset)


def rotate_complex(x, positions, rates):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    angles = torch.outer(positions, rates)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def rotate_filled_in(x, positions, rates):
    out, angles = torch.zeros_like(x), torch.einsum("t,p->tp", positions, rates)
    out[..., 0::2] = x[..., 0::2] * angles.cos() - x[..., 1::2] * angles.sin()
    out[..., 1::2] = x[..., 0::2] * angles.sin() + x[..., 1::2] * angles.cos()
    return out


class RotatesByMatrices(nn.Module):
    def forward(self, x, positions, rates):
        angles = positions[:, None] * rates
        cos, sin = angles.cos(), angles.sin()
        turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # (T, P, 2, 2)
        return (turn @ x.unflatten(-1, (-1, 2))[..., None]).flatten(-3)


def half_by_parts(x, angles):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


def half_complex(x, angles):
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def half_by_roll(x, angles):
    half = x.shape[-1] // 2
    sign = torch.cat([-torch.ones(half), torch.ones(half)]).to(x)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    return x * cos + x.roll(half, dims=-1) * sign * sin


def alibi_by_loops(scores, slopes):
    out, (T, S) = scores.clone(), scores.shape[-2:]
    for h, t, s in itertools.product(range(len(slopes)), range(T), range(S)):
        out[:, h, t, s] = scores[:, h, t, s] - slopes[h] * abs(S - T + t - s)
    return out


def alibi_by_einsum(scores, slopes):
    T, S = scores.shape[2:]
    far = torch.arange(S) - torch.arange(S - T, S).view(-1, 1)
    return scores + torch.einsum("h,ts->hts", slopes, -far.abs().to(slopes))


def cached_from_the_whole(q, k, v):
    """As if all tokens had asked, the older ones with queries of zeros; their answers are thrown away."""
    T, S = q.shape[-2], k.shape[-2]
    q = torch.cat([q.new_zeros(len(q), S - T, q.shape[-1]), q], dim=-2)
    places = torch.arange(S)
    out, _ = attention(rotate(q, places)[None], rotate(k, places)[None], v[None], causal_mask(S))
    return out[0, :, S - T :]


def cached_with_moved_keys(q, k, v):
    """Only distances count: so the queries may stand at 0, 1, ... if the keys go back as far."""
    T, S = q.shape[-2], k.shape[-2]
    q, k = rotate(q, torch.arange(T)), rotate(k, torch.arange(S) - (S - T))
    return attention(q[None], k[None], v[None], causal_mask(T, S))[0][0]


def cached_one_by_one(q, k, v):
    T, S, rows = q.shape[-2], k.shape[-2], []
    for t in range(T):
        end = S - T + t + 1
        query, keys = rotate(q[:, t : t + 1], torch.tensor([end - 1])), rotate(k[:, :end], torch.arange(end))
        rows.append(((query @ keys.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v[:, :end])
    return torch.cat(rows, dim=-2)


def halves_by_index(weight, n_heads):
    width = len(weight) // n_heads
    order = [h * width + i for h in range(n_heads) for i in [*range(0, width, 2), *range(1, width, 2)]]
    return weight[order]


def halves_head_by_head(weight, n_heads):
    return torch.cat([part for head in weight.chunk(n_heads) for part in (head[0::2], head[1::2])])


RIGHT = {
    "sinusoid": [sinusoid_by_loops, sinusoid_filled_in, sinusoid_by_outer],
    "shift_matrix": [shift_by_loops, shift_by_matrix_power],
    "rotate_pairs": [rotate_complex, rotate_filled_in, RotatesByMatrices()],
    "rotate_half": [half_by_parts, half_complex, half_by_roll],
    "add_alibi": [alibi_by_loops, alibi_by_einsum],
    "cached_attention": [cached_from_the_whole, cached_with_moved_keys, cached_one_by_one],
    "to_halves": [halves_by_index, halves_head_by_head, lambda w, n: change_layout(w, n, "half")],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {}


def test_the_chapter_has_twelve_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 12 and set(kinds) == {"implement", "predict", "debug", "measure"}
