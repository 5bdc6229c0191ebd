"""Train the models that the book's pages run in the browser, and write them where the pages find them.

    python tools/train_page_models.py

About a minute on two CPU cores. Prints the accuracy on numbers that the model never saw, as trained and with
the rounded weights that a page gets, and the bytes a reader loads. The seeds are fixed, but the last digits
of the weights differ from machine to machine.
"""

from pathlib import Path

import torch

from transformer_lab.models.number_reader import NumberReader
from transformer_lab.training.number_reader import exact_match, split, train_number_reader
from transformer_lab.widgets._asset import asset_scripts, exported_weights
from transformer_lab.widgets.attention_heads import export_number_reader

MODELS = Path(__file__).parent.parent / "book" / "_assets" / "models"


def number_reader() -> NumberReader:
    """A trained NumberReader."""
    torch.manual_seed(0)
    model = NumberReader()
    train_number_reader(model, split()[0])
    return model.eval()


def as_loaded(data: dict) -> NumberReader:
    """The NumberReader that a page makes of ``data``."""
    model = NumberReader(**data["config"])
    model.load_state_dict(exported_weights(data))
    return model.eval()


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
    model = number_reader()
    data = export_number_reader(model)
    size = write("number_reader", data)
    test = split()[1]
    trained, loaded = (exact_match(m, test) for m in (model, as_loaded(data)))
    print(
        f"number_reader: of {len(test)} new numbers, {trained:.2%} read without a fault as trained, "
        f"{loaded:.2%} on the page; {size:,} bytes"
    )


if __name__ == "__main__":
    main()
