"""What references are made of: NumPy, so that they err in other ways than an answer in PyTorch."""

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis.

    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
