"""The Transformer, built part by part: the companion package of the book "Transformer Lab"."""

from importlib.metadata import version

import torch

__version__ = version("transformer-lab")


def device() -> torch.device:
    """Where to compute: a CUDA GPU if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
