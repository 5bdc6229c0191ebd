"""The Transformer, built part by part: the companion package of the book "Transformer Lab"."""

from importlib.metadata import version

import torch

__version__ = version("transformer-lab")


def device() -> torch.device:
    """Where to compute: a CUDA GPU if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def hardware() -> str:
    """What there is to compute with, and what follows from it, in a plain sentence.

    Chapters are of the same size everywhere. What differs is how long training takes, and what becomes of the
    kernels: Triton compiles them for GPUs of compute capability 8.0 and more; elsewhere its interpreter runs
    them, slowly and on small tensors.
    """
    found = device().type
    interpreted = "kernels are interpreted"
    if found == "cpu":
        return f"no GPU; all runs on the CPU, in the sizes of the text; {interpreted}"
    if found == "mps":
        return f"Apple's GPU; training runs on it; {interpreted}"
    card = torch.cuda.get_device_properties(0)
    can_compile = (card.major, card.minor) >= (8, 0)
    kernels = "kernels are compiled for it" if can_compile else interpreted
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB; training runs on it; {kernels}"
