"""Train the models that the book's pages run in the browser, and write them where the pages find them.

    python tools/train_page_models.py

About a minute on two CPU cores. Prints the accuracy on numbers that the model never saw, and the bytes a
reader loads. The seeds are fixed, but the last digits of the weights differ from machine to machine.
"""

from pathlib import Path

import torch

from transformer_lab.models.number_reader import NumberReader
from transformer_lab.training.number_reader import exact_match, split, train_number_reader
from transformer_lab.widgets._asset import asset_scripts
from transformer_lab.widgets.attention_heads import export_number_reader

MODELS = Path(__file__).parent.parent / "book" / "_assets" / "models"


def number_reader() -> tuple[NumberReader, str]:
    """A trained NumberReader, and how well it reads."""
    torch.manual_seed(0)
    model = NumberReader()
    train, test = split()
    train_number_reader(model, train)
    return model.eval(), f"reads {exact_match(model, test):.2%} of {len(test)} new numbers without a fault"


def write(name: str, data: dict) -> int:
    """Put the model's scripts in the place of older ones; returns their size in bytes."""
    MODELS.mkdir(exist_ok=True)
    for old in MODELS.glob(f"{name}.*.js"):
        old.unlink()
    scripts = asset_scripts(name, data)
    for i, script in enumerate(scripts):
        (MODELS / f"{name}.{i}.js").write_text(script, "utf8")
    return sum(map(len, scripts))


def main() -> None:
    model, quality = number_reader()
    size = write("number_reader", export_number_reader(model))
    print(f"number_reader: {quality}; {size:,} bytes")


if __name__ == "__main__":
    main()
