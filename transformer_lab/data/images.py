"""Pictures to fetch: small grey ones of clothes in ten classes, and four photographs."""

import gzip
from os import PathLike
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from .registry import DATASETS, fetch

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(
    part: Literal["train", "test"] = "train", *, folder: str | PathLike[str] | None = None
) -> tuple[UInt8[Tensor, "N 28 28"], Int64[Tensor, "N"]]:
    """Fashion-MNIST as published: images of 28 x 28 pixels and their classes, as numbers of ``CLASSES``.

    Args:
        part: 60,000 images to train on, or 10,000 to test with; the classes are equally frequent in both.
        folder: where to keep the files, as in ``registry.fetch``.

    Returns:
        Images, from 0, the background, to 255, and labels from 0 to 9.

    Raises:
        ValueError: another part.
        FetchError: a file cannot be had.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    stem = "train" if part == "train" else "t10k"
    images = _idx(fetch("fashion_mnist", file=f"{stem}-images-idx3-ubyte.gz", folder=folder))
    labels = _idx(fetch("fashion_mnist", file=f"{stem}-labels-idx1-ubyte.gz", folder=folder))
    return images, labels.long()


def _idx(path: PathLike[str]) -> UInt8[Tensor, "..."]:
    """A file of the MNIST family: two zeros, 8 for bytes, the number of axes, their lengths, the bytes."""
    with gzip.open(path) as file:
        content = bytearray(file.read())
    n_axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", offset=4, count=n_axes).tolist()
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * n_axes).view(shape)


def photograph(name: str, *, folder: str | PathLike[str] | None = None) -> UInt8[Tensor, "rows columns 3"]:
    """A photograph in red, green and blue, from 0 to 255, the top row first.

    Args:
        name: "chelsea", a cat, 300 rows of 451; "coffee", 400 of 600; "astronaut", a real person, 512 of
            512; "rocket", 427 of 640.
        folder: where to keep the file, as in ``registry.fetch``.

    Raises:
        ValueError: another name.
        FetchError: the file cannot be had.
    """
    files = {file.partition(".")[0]: file for file in DATASETS["images"].files}
    if name not in files:
        raise ValueError(f"there is no photograph {name!r}; there are {', '.join(files)}")
    with Image.open(fetch("images", file=files[name], folder=folder)) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))
