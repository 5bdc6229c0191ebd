"""One alphabet for formulas, code, error messages and figures; the book's notation page prints it."""

from jaxtyping import Bool, Float
from torch import Tensor

LETTERS = {
    "B": "batch: sequences computed side by side",
    "T": "query positions: the tokens that ask",
    "S": "key and value positions: the tokens that answer (S = T in self-attention)",
    "D": "model width: numbers per token between modules (d_model in papers)",
    "H": "heads",
    "G": "key/value heads, where several query heads share one",
    "Dh": "width of one head (d_k in papers), usually D / H",
    "F": "width of the hidden layer of a feed-forward network (d_ff)",
    "V": "vocabulary size",
    "L": "layers",
    "N": "state size of a state-space model",
}

COLOURS = {  # Okabe and Ito's palette: told apart by colour-blind readers
    "query": "#0072B2",
    "key": "#D55E00",
    "value": "#009E73",
    "output": "#CC79A7",
    "masked": "#999999",
}

Mask = Bool[Tensor, "... #T #S"]  # True = may attend; broadcast to (B, H, T, S)
Bias = Float[Tensor, "... #T #S"]  # added to the scores
