"""Pictures from made-up files that are laid out like the real ones; and, where slow, from those."""

import gzip
import io
import os

import pytest
import torch
from PIL import Image

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data.images import CLASSES, fashion_mnist, photograph


def idx(tensor):
    lengths = b"".join(length.to_bytes(4, "big") for length in tensor.shape)
    return gzip.compress(bytes([0, 0, 8, tensor.dim()]) + lengths + bytes(tensor.flatten().tolist()))


def test_images_of_clothes_and_their_classes(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    parts = {
        part: (
            torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8),
            torch.randint(10, (n,), generator=generator),
        )
        for part, n in (("train", 3), ("t10k", 2))
    }
    contents = {f"{part}-images-idx3-ubyte.gz": idx(images) for part, (images, _) in parts.items()}
    contents |= {f"{part}-labels-idx1-ubyte.gz": idx(labels) for part, (_, labels) in parts.items()}
    make_up(monkeypatch, tmp_path, "fashion_mnist", contents)
    for part, name in (("train", "train"), ("test", "t10k")):
        images, labels = fashion_mnist(part)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert torch.equal(images, parts[name][0]) and torch.equal(labels, parts[name][1])
    assert torch.equal(fashion_mnist()[0], parts["train"][0])
    images.zero_()  # may be changed, and changes no file
    assert torch.equal(fashion_mnist("test")[0], parts["t10k"][0])


def test_a_photograph_row_by_row_in_three_colours_whatever_the_file_has(tmp_path, monkeypatch):
    picture = Image.new("RGBA", (3, 2), (10, 20, 30, 255))
    picture.putpixel((2, 0), (200, 0, 100, 255))
    picture.save(stored := io.BytesIO(), "png")
    make_up(monkeypatch, tmp_path, "images", {"chelsea.png": stored.getvalue()})
    pixels = photograph("chelsea")
    assert pixels.dtype == torch.uint8 and pixels.shape == (2, 3, 3)
    assert pixels[0, 2].tolist() == [200, 0, 100] and pixels[1, 2].tolist() == [10, 20, 30]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fashion_mnist("validation"), "part must be 'train' or 'test', got 'validation'"),
        (lambda: photograph("dog"), "no photograph 'dog'; there are chelsea, coffee, astronaut, rocket$"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.slow
def test_the_real_pictures():
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    assert len(CLASSES) == 10
    beginnings = {"train": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "test": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
    for part, n in (("train", 60_000), ("test", 10_000)):
        images, labels = fashion_mnist(part)
        assert images.shape == (n, 28, 28) and (images.min(), images.max()) == (0, 255)
        assert labels.bincount().tolist() == [n // 10] * 10 and labels[:10].tolist() == beginnings[part]
        trousers = images[labels == CLASSES.index("Trouser")].float().mean(0)
        assert trousers[:, 14].mean() < trousers[:, 10].mean()  # a gap between the legs: not transposed
    shapes = {"chelsea": (300, 451), "coffee": (400, 600), "astronaut": (512, 512), "rocket": (427, 640)}
    for name, shape in shapes.items():
        pixels = photograph(name)
        assert pixels.shape == (*shape, 3) and pixels.dtype == torch.uint8 and pixels.float().std() > 20
