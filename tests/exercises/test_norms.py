"""The exercises of "Residuals and norms": other right answers, and what its checks say beyond the contract."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab import norms
from transformer_lab.exercises import norms as ex

# --- right answers in other words ----------------------------------------------------------------------


def layer_norm_by_loops(x, weight, bias, eps):
    rows = []
    for token in x.flatten(0, 1):
        mean = sum(token) / len(token)
        variance = sum((entry - mean) ** 2 for entry in token) / len(token)
        rows.append((token - mean) / (variance + eps) ** 0.5 * weight + bias)
    return torch.stack(rows).unflatten(0, x.shape[:2])


def layer_norm_by_var(x, weight, bias, eps):
    mean = x.mean(2)[..., None]
    return weight * (x - mean) * torch.rsqrt(x.var(2, correction=0)[..., None] + eps) + bias


def layer_norm_by_einsum(x, weight, bias, eps):
    centred = x - torch.einsum("btd->bt", x)[..., None] / x.shape[-1]
    squares = torch.einsum("btd,btd->bt", centred, centred)[..., None] / x.shape[-1]
    return torch.addcmul(bias, centred / (squares + eps).sqrt(), weight)


def rms_norm_by_loops(x, weight, eps):
    rows = [token * (sum(token * token) / len(token) + eps) ** -0.5 for token in x.flatten(0, 1)]
    return torch.stack(rows).reshape(x.shape) * weight


def rms_norm_by_length(x, weight, eps):
    width = x.shape[-1]
    long = x * x
    return x * weight * width**0.5 / (long.sum(-1, keepdim=True) + width * eps).sqrt()


def pre_norm_by_the_package(x, w):
    residual = norms.Residual(x.shape[-1]).to(x.dtype)
    return residual(x, lambda h: (h @ w).relu())


def pre_norm_by_hand(x, w):
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return torch.clamp(torch.einsum("btd,de->bte", h, w), min=0) + x


def repaired_by_the_library(x, w):
    h = F.layer_norm(x, x.shape[-1:])
    count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
    return x + h.cumsum(1) / count @ w


def repaired_token_by_token(x, w):
    h = F.layer_norm(x, (x.shape[2],))
    return x + torch.stack([h[:, : t + 1].mean(1) @ w for t in range(x.shape[1])], dim=1)


class Layers(nn.Module):
    """The three layers, made in another order."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down_proj = nn.Linear(hidden, width)
        self.up_proj = nn.Linear(width, hidden)


class StepByStep(Layers):
    def forward(self, x):
        out = self.up_proj(x)
        out = self.down_proj(torch.where(out > 0, out, 0.0))
        return F.layer_norm(out + x, x.shape[-1:], self.norm.weight, self.norm.bias)


class ByTheFormula(Layers):
    def forward(self, x):
        y = x + F.linear(F.relu(self.up_proj(x)), self.down_proj.weight, self.down_proj.bias)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * self.norm.weight + self.norm.bias


def schedule_in_two_pieces(steps, d_model, warmup):
    peak = 1 / math.sqrt(d_model * warmup)
    return torch.where(steps < warmup, peak * steps / warmup, peak * (warmup / steps).sqrt())


def schedule_by_a_loop(steps, d_model, warmup):
    return torch.tensor([d_model**-0.5 * min(s**-0.5, s * warmup**-1.5) for s in steps.tolist()])


def backward_by_projection(x, upstream, eps):
    square = x.square().mean(-1, keepdim=True) + eps
    inner = torch.einsum("btd,btd->bt", upstream, x)[..., None] / x.shape[-1]
    return upstream * square.rsqrt() - x * inner * square**-1.5


def backward_by_the_table(x, upstream, eps):
    out = torch.zeros_like(x)
    for b, t in np.ndindex(tuple(x.shape[:2])):
        token, width = x[b, t], x.shape[-1]
        r = (token @ token / width + eps).sqrt()
        table = torch.eye(width, dtype=x.dtype) / r - torch.outer(token, token) / (width * r**3)
        out[b, t] = table @ upstream[b, t]
    return out


RIGHT = {
    "layer_norm": [layer_norm_by_loops, layer_norm_by_var, layer_norm_by_einsum],
    "rms_norm": [rms_norm_by_loops, rms_norm_by_length],
    "pre_norm": [pre_norm_by_the_package, pre_norm_by_hand],
    "find_the_leak": [repaired_by_the_library, repaired_token_by_token],
    "PostNormFeedForward": [StepByStep, ByTheFormula],
    "warm_up": [schedule_in_two_pieces, schedule_by_a_loop],
    "rms_norm_backward": [backward_by_projection, backward_by_the_table],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
EQUIVALENT = {}
