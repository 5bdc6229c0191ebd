"""Three ways to carry what was read to where it is needed: recurrence, convolution, attention. What does each
do with distance?

Layers here are causal and of one shape, (B, T, D) to (B, T, D), so that all of them can be put to the same
questions. Letters as in ``notation``. Sources: Vaswani et al. (2017), section 4 and Table 1,
https://arxiv.org/abs/1706.03762; Hochreiter and Schmidhuber (1997), https://doi.org/10.1162/neco.1997.9.8.1735
(LSTM); Bai et al. (2018), https://arxiv.org/abs/1803.01271 (dilated causal convolutions).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import MultiHeadAttention
from .efficient import check_sizes
from .masks import causal_mask
from .models.language_model import LanguageModelConfig, Layer

LayerName = Literal[
    "tanh RNN",
    "orthogonal RNN",
    "LSTM",
    "LSTM, gate open",
    "convolutions",
    "attention",
    "six blocks",
]
NAMES: tuple[LayerName, ...] = get_args(LayerName)
OPEN = 3.0  # the bias of an open forget gate: it lets sigmoid(3) = 0.95 of each number stand


class Recurrent(nn.Module):
    """PyTorch's ``nn.RNN`` or ``nn.LSTM``: a state that goes from token to token.

    Args:
        d_model: width D of tokens and state.
        cell: "tanh", h = tanh(U x + W h + b), or "lstm", whose gates say what stays.
        start: the first weights: "default" as PyTorch draws them; "orthogonal", W turns the state and leaves
            its length as it is ("tanh" only); "open", the forget gate has the bias ``OPEN`` ("lstm" only).

    Raises:
        ValueError: a width below 1, an unknown cell, or a start that the cell does not have.

    >>> Recurrent(d_model=4, cell="lstm")(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        *,
        d_model: int,
        cell: Literal["tanh", "lstm"],
        start: Literal["default", "orthogonal", "open"] = "default",
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        if cell not in ("tanh", "lstm"):
            raise ValueError(f"cell must be 'tanh' or 'lstm', got {cell!r}")
        starts = ("default", "orthogonal") if cell == "tanh" else ("default", "open")
        if start not in starts:
            raise ValueError(f"a cell {cell!r} starts {' or '.join(map(repr, starts))}, got {start!r}")
        self.d_model, self.cell = d_model, cell
        make = nn.RNN if cell == "tanh" else nn.LSTM
        self.recurrence = make(d_model, d_model, batch_first=True)
        if start == "orthogonal":
            nn.init.orthogonal_(self.recurrence.weight_hh_l0)
        if start == "open":
            set_forget_bias(self.recurrence, OPEN)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.recurrence(x)[0]


@torch.no_grad()
def set_forget_bias(lstm: nn.LSTM, bias: float) -> None:
    """Give all forget gates of the first layer the same bias: sigmoid(bias) of each number stands at first.

    Source: Jozefowicz et al. (2015), https://proceedings.mlr.press/v37/jozefowicz15.html, who advise 1.

    >>> lstm = nn.LSTM(2, 2)
    >>> set_forget_bias(lstm, 3.0)
    >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0)[2:4].tolist()
    [3.0, 3.0]
    """
    forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)  # PyTorch's order: input, forget, cell, output
    lstm.bias_ih_l0[forget] = bias
    lstm.bias_hh_l0[forget] = 0.0  # there are two biases, which are added


class DilatedConvolutions(nn.Module):
    """Causal ``nn.Conv1d`` of two taps, the second 1, 2, 4, ... tokens back: x + conv(relu(x)) in each layer.

    After L layers a token has seen 2ᴸ tokens, itself the last. Source: Bai et al. (2018), section 3; simpler
    than theirs: one convolution around each skip connection, no dropout, no weight norm.

    Args:
        d_model: width D, the number of channels.
        reach: tokens that the last one must see; the number of layers follows from it.

    Raises:
        ValueError: a size below 1.

    >>> len(DilatedConvolutions(d_model=4, reach=100).layers)
    7
    """

    def __init__(self, *, d_model: int, reach: int) -> None:
        super().__init__()
        check_sizes(d_model=d_model, reach=reach)
        self.d_model = d_model
        dilations = [2**layer for layer in range(max(1, (reach - 1).bit_length()))]
        self.layers = nn.ModuleList(nn.Conv1d(d_model, d_model, 2, dilation=d) for d in dilations)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = x.mT  # conv1d wants the channels before time
        for layer in self.layers:
            before = F.pad(
                x.relu(), (layer.dilation[0], 0)
            )  # zeros before the first token, none after the last
            x = x + layer(before)
        return x.mT


class CausalAttention(nn.Module):
    """Multi-head attention in which each token sees itself and those before it.

    Args:
        d_model: width D, a multiple of ``n_heads``; n_heads: heads H.

    Raises:
        ValueError: as ``attention.MultiHeadAttention``.

    >>> CausalAttention(d_model=4, n_heads=2)(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.attention(x, x, causal_mask(x.shape[1], device=x.device))

    def weights(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T T"]:
        """How much each token takes from each."""
        return self.attention.weights(x, x, causal_mask(x.shape[1], device=x.device))


class Blocks(nn.Module):
    """Transformer blocks, as in the language model: causal attention and a feed-forward network of 4 D.

    Args:
        d_model: width D, a multiple of ``n_heads``; n_heads: heads H; n_layers: blocks L.

    Raises:
        ValueError: as ``LanguageModelConfig`` and ``attention.MultiHeadAttention``.

    >>> Blocks(d_model=4, n_heads=2, n_layers=2)(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, *, d_model: int, n_heads: int, n_layers: int) -> None:
        super().__init__()
        config = LanguageModelConfig(
            vocab_size=1,
            d_model=d_model,
            n_heads=n_heads,
            n_layers=n_layers,
            d_ff=4 * d_model,
            positions="none",
        )
        self.d_model = d_model
        self.layers = nn.ModuleList(Layer(config) for _ in range(n_layers))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        mask = causal_mask(x.shape[1], device=x.device)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def make_layer(name: LayerName, *, d_model: int, reach: int) -> nn.Module:
    """One of ``NAMES``, with fresh weights from PyTorch's global generator.

    Args:
        name: what kind of layer.
        d_model: width D; a multiple of 2, the number of heads, for "attention" and "six blocks".
        reach: tokens that the last one must see. It sets the number of convolutions; all others
            see any number.

    Raises:
        ValueError: an unknown name, or a size that the layer cannot have.
    """
    check_sizes(d_model=d_model, reach=reach)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "tanh RNN": lambda: Recurrent(d_model=d_model, cell="tanh"),
        "orthogonal RNN": lambda: Recurrent(d_model=d_model, cell="tanh", start="orthogonal"),
        "LSTM": lambda: Recurrent(d_model=d_model, cell="lstm"),
        "LSTM, gate open": lambda: Recurrent(d_model=d_model, cell="lstm", start="open"),
        "convolutions": lambda: DilatedConvolutions(d_model=d_model, reach=reach),
        "attention": lambda: CausalAttention(d_model=d_model, n_heads=2),
        "six blocks": lambda: Blocks(d_model=d_model, n_heads=2, n_layers=6),
    }
    if name not in kinds:
        raise ValueError(f"name must be one of {'; '.join(kinds)}; got {name!r}")
    return kinds[name]()


def gradient_by_distance(
    layer: nn.Module,
    distances: Sequence[int],
    *,
    d_model: int,
    n_tokens: int,
    n_batch: int = 8,
    seed: int = 0,
) -> list[float]:
    r"""How much the last output would change if a token ``distance`` places before it moved a little.

    The mean over the batch of ‖∂(v · y_T) / ∂x_{T-k}‖, for tokens x and a direction v whose numbers are
    normal with variance 1. It is computed in the precision of the layer's weights.

    Args:
        layer: (B, T, D) to (B, T, D), causal or not.
        distances: the k, from 0, the last token itself, to n_tokens - 1.
        d_model: width D; n_tokens: T; n_batch: B random sequences; seed: of tokens and direction.

    Returns:
        A number for each distance.

    Raises:
        ValueError: a size below 1, or a distance that leads out of the sequence.

    >>> gradient_by_distance(nn.Identity(), [1, 2], d_model=4, n_tokens=3)  # sees itself alone
    [0.0, 0.0]
    """
    check_sizes(d_model=d_model, n_tokens=n_tokens, n_batch=n_batch)
    if not all(0 <= k < n_tokens for k in distances):
        raise ValueError(f"distances must be from 0 to n_tokens - 1 = {n_tokens - 1}, got {list(distances)}")
    x = _tokens(layer, n_batch, n_tokens, d_model, seed).requires_grad_()
    v = _tokens(layer, n_batch, 1, d_model, seed + 1)[:, 0]
    (gradient,) = torch.autograd.grad((v * layer(x)[:, -1]).sum(), x)
    largest = gradient.abs().amax(dim=-1, keepdim=True)
    unit = torch.where(largest > 0, largest, 1)  # so that no square is too small for its precision
    of_tokens = ((gradient / unit).norm(dim=-1) * unit[..., 0]).mean(dim=0)  # (B, T, D) -> (T)
    return [of_tokens[n_tokens - 1 - k].item() for k in distances]


def reads_from(layer: nn.Module, *, d_model: int, n_tokens: int, seed: int = 0) -> Bool[Tensor, "T T"]:
    """Which outputs (rows) depend on which tokens (columns): where the gradient is not exactly 0.

    A ReLU may shut by chance, so the answer is gathered over four random sequences; weights in float64 keep
    faint gradients from ending as 0.

    Raises:
        ValueError: a size below 1.

    >>> reads_from(nn.Identity(), d_model=4, n_tokens=2).tolist()
    [[True, False], [False, True]]
    """
    check_sizes(d_model=d_model, n_tokens=n_tokens)
    x = _tokens(layer, 4, n_tokens, d_model, seed).requires_grad_()
    y = layer(x)
    rows = [
        torch.autograd.grad(y[:, t].square().sum(), x, retain_graph=True)[0].ne(0).any(dim=-1).any(dim=0)
        for t in range(n_tokens)
    ]
    return torch.stack(rows)


def path_length(hops: Sequence[Bool[Tensor, "T T"]]) -> int:
    """The number of hops after which the last token depends on the first.

    Args:
        hops: in their order, which tokens (rows) read from which (columns) in each.

    Raises:
        ValueError: the first token is never reached.

    >>> neighbour = torch.eye(4, dtype=torch.bool) | torch.eye(4, dtype=torch.bool).roll(1, 0).tril()
    >>> path_length([neighbour] * 5)  # from the fourth to the first
    3
    """
    knows = None
    for number, hop in enumerate(hops, start=1):
        # Reads somebody who knows: whole numbers, for booleans have no matrix product.
        knows = hop if knows is None else (hop.int() @ knows.int()).bool()
        if knows[-1, 0]:
            return number
    raise ValueError(f"after {len(hops)} hops the last token does not depend on the first")


def longest_chain(output: Tensor) -> int:
    """How many matrix products in ``output``'s history must wait for one another: the longest chain of them.

    It is read from the graph that autograd keeps. Products that do not need each other count once: a machine
    with room for all can do them at the same time.

    Raises:
        ValueError: a tensor that no gradient flows through, or a recurrence whose steps one kernel hides.

    >>> x, w = torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)
    >>> longest_chain((x @ w) @ (x @ w))  # two side by side, and one that waits
    2
    """
    if output.grad_fn is None:
        raise ValueError("output must come from weights with gradients: nothing else is recorded")
    longest: dict[Any, int] = {}
    waiting = [output.grad_fn]
    while waiting:  # by hand, for a recurrence is deeper than Python's stack
        node = waiting[-1]
        before = [f for f, _ in node.next_functions if f is not None]
        unknown = [f for f in before if f not in longest]
        if unknown:
            waiting.extend(unknown)
            continue
        waiting.pop()
        if node.name().startswith(_HIDDEN):
            raise ValueError(
                f"{node.name()} hides its products; on a CPU, recurrences in float64 show each of theirs"
            )
        products = next((n for name, n in _PRODUCTS.items() if node.name().startswith(name)), 0)
        longest[node] = products + max((longest[f] for f in before), default=0)
    return longest[output.grad_fn]


_PRODUCTS = {  # what autograd calls them, and how many products that is
    "AddmmBackward": 1,
    "MmBackward": 1,
    "MvBackward": 1,
    "BmmBackward": 1,
    "ConvolutionBackward": 1,
    "ScaledDotProduct": 2,  # scores, and then their weighted sum, whichever kernel it is
}
_HIDDEN = ("MkldnnRnn", "CudnnRnn", "MiopenRnn")


def _tokens(layer: nn.Module, n_batch: int, n_tokens: int, d_model: int, seed: int) -> Tensor:
    """Random tokens where the layer's weights are, the same on every device."""
    weight = next(layer.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_batch, n_tokens, d_model, generator=generator, dtype=torch.float64).to(weight)
