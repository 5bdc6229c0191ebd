import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import transformer_lab
from transformer_lab import notation

PACKAGE = Path(transformer_lab.__file__).parent


def test_every_axis_letter_in_a_signature_is_explained():
    """Local letters (said in their docstrings): P places or pairs, C classes, Dv width of a value,
    E experts, k of them, Di channels inside of Mamba's block, Dc width of a latent, Dr of its rotary part,
    R runs of one size, or draws. Pictures have rows and columns, filters have bands.
    """
    used = set()
    for path in PACKAGE.rglob("*.py"):
        for axes in re.findall(r'(?:Float|Integer|U?Int|Bool)\d*\[Tensor, "([^"]+)"\]', path.read_text()):
            used |= {axis.lstrip("#*") for axis in axes.split()}
    unknown = (
        {a for a in used if not a.isdigit()}
        - set(notation.LETTERS)
        - {"...", "P", "C", "Dv", "E", "k", "HDh", "Di", "Dc", "Dr", "R"}
        - {"rows", "columns", "bands"}
    )
    assert used and not unknown


def test_device_is_where_torch_can_compute():
    assert transformer_lab.device().type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize(
    ("kind", "card", "said"),
    [
        ("cpu", None, "no GPU; all runs on the CPU, in the sizes of the text; kernels are interpreted"),
        ("mps", None, "Apple's GPU; training runs on it; kernels are interpreted"),
        ("cuda", ("H100", 9, 80), "H100, 80 GiB; training runs on it; kernels are compiled for it"),
        ("cuda", ("T4", 7, 15), "T4, 15 GiB; training runs on it; kernels are interpreted"),
    ],
)
def test_the_hardware_is_named_with_what_follows_from_it(monkeypatch, kind, card, said):
    if card:
        properties = SimpleNamespace(name=card[0], major=card[1], minor=5, total_memory=card[2] * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(transformer_lab, "device", lambda: torch.device(kind))
    assert transformer_lab.hardware() == said
