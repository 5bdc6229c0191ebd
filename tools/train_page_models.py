"""Train the models that the book's pages run in the browser, and write them where the pages find them.

    python tools/train_page_models.py
    python tools/train_page_models.py number_words

Some minutes on two CPU cores; with names, those models only. Prints the accuracy on what the model never
saw, with the rounded weights that a page gets, and the bytes a reader loads. The seeds are fixed, but
the last digits of the weights differ from machine to machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from transformer_lab.induction import attention_only
from transformer_lab.models.language_model import LanguageModel
from transformer_lab.models.number_reader import NumberReader
from transformer_lab.training import encoder_decoder, induction, number_reader
from transformer_lab.translator import Translator
from transformer_lab.widgets._asset import asset_scripts, exported_weights
from transformer_lab.widgets._translator import export_translator
from transformer_lab.widgets.attention_heads import export_number_reader
from transformer_lab.widgets.induction_heads import export_induction

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "book" / "_assets" / "models"
WEIGHTS = ROOT / "transformer_lab" / "weights"


def trained_reader() -> NumberReader:
    """A trained NumberReader."""
    torch.manual_seed(0)
    model = NumberReader()
    number_reader.train_number_reader(model, number_reader.split()[0])
    return model.eval()


def as_loaded(data: dict) -> NumberReader:
    """The NumberReader that a page makes of ``data``."""
    model = NumberReader(**data["config"])
    model.load_state_dict(exported_weights(data))
    return model.eval()


def make_number_reader() -> tuple[dict, float]:
    """What its page loads, and how many of the test's numbers that reads without a fault."""
    data = export_number_reader(trained_reader())
    return data, number_reader.exact_match(as_loaded(data), number_reader.split()[1])


def trained_translator() -> Translator:
    """A trained translator of number words."""
    translator = encoder_decoder.number_translator()
    encoder_decoder.number_trainer(translator).train()
    translator.model.eval()
    return translator


def make_number_words() -> tuple[dict, float]:
    """The same for the translator, which the package brings along: it is stored there too."""
    file = WEIGHTS / "number_words.safetensors"
    trained_translator().save(file)
    translator = Translator.load(file)
    test = encoder_decoder.NUMBERS.of(encoder_decoder.NUMBERS.split().test)
    return export_translator(translator), encoder_decoder.exact_match(translator, test)


def trained_induction() -> LanguageModel:
    """A trained model of attention alone."""
    model = induction.build()
    induction.train(model)
    return model.eval()


def make_induction() -> tuple[dict, float]:
    """The model of the chapter on heads: the package gets the rounded weights that its page has."""
    data = export_induction(trained_induction())
    file = WEIGHTS / "models" / "induction.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(exported_weights(data), file)
    model = attention_only()
    model.load_state_dict(exported_weights(data))
    return data, induction.share_right(model.eval(), induction.new_rows())


MAKERS = {
    "number_reader": make_number_reader,
    "number_words": make_number_words,
    "induction": make_induction,
}


def write(name: str, data: dict) -> int:
    """Put the model's scripts in the place of older ones; returns their size in bytes."""
    MODELS.mkdir(exist_ok=True)
    for old in MODELS.glob(f"{name}.*.js"):
        old.unlink()
    scripts = asset_scripts(name, data)
    for i, script in enumerate(scripts):
        (MODELS / f"{name}.{i}.js").write_text(script, "utf8")
    return sum(map(len, scripts))


def main(names: Sequence[str]) -> None:
    if unknown := sorted(set(names) - set(MAKERS)):
        raise SystemExit(f"there is no model {unknown[0]}; there are {', '.join(MAKERS)}")
    for name in names or MAKERS:
        data, accuracy = MAKERS[name]()
        size = write(name, data)
        print(f"{name}: {accuracy:.2%} right of what it never saw, on the page; {size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
