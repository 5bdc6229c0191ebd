"""The widgets' arithmetic against numbers that PyTorch writes, in Node's own test runner (*.test.mjs)."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

from tests.strict import require
from tests.widgets.assets import load, page_scripts, tensor
from transformer_lab.attention import attention
from transformer_lab.data.pairs import number_pairs
from transformer_lab.models.number_reader import VOCABULARY, NumberReader, tokenize
from transformer_lab.training.number_reader import number_words, sample_numbers
from transformer_lab.widgets import DepthAndWiring, GradientAndDistance, QueryKeyValue
from transformer_lab.widgets.attention_heads import export_number_reader

from .efficient_cases import cost_cases
from .feed_forward_cases import knot_cases
from .flash_cases import tile_cases
from .induction_cases import induction_cases
from .masks_cases import mask_cases
from .positional_cases import dials_cases, hands_cases
from .runtime_cases import randn, runtime_cases
from .scaling_cases import budget_cases
from .selective_scan_cases import scan_cases
from .sliding_window_cases import window_cases
from .translator_cases import WORDS_SHA256, translator_cases

HERE = Path(__file__).parent
NODE = Path(sys.executable).with_name("node")


def number_readers():
    trained = load(page_scripts("number_reader"), "number_reader")
    model = NumberReader(**trained["config"])
    model.load_state_dict({name: tensor(record) for name, record in trained["tensors"].items()})
    yield model
    for sizes in ({}, {"d_model": 6, "n_heads": 3}):
        yield NumberReader(**sizes)
        extreme = NumberReader(**sizes)  # scores in the thousands: a softmax that is 0 or 1
        extreme.q_proj.weight.data *= 3000
        extreme.self_attention.q_proj.weight.data *= 3000
        yield extreme


def reader_cases():
    """Every model reads text of every length, one lonely token included."""
    generator = torch.Generator().manual_seed(0)
    texts = [tokenize(number_words(n)) for n in [0, 12, 342_107, 777_777, *sample_numbers(8, generator)]]
    for model in number_readers():
        asset = export_number_reader(model)
        model.load_state_dict({name: tensor(record) for name, record in asset["tensors"].items()})
        yield {"asset": asset, "reads": [read(model.double(), ids) for ids in ([1], *texts)]}


def read(model: NumberReader, ids: list[int]) -> dict:
    tokens = torch.tensor([ids])
    return {
        "tokens": ids,
        "logits": model(tokens)[0].tolist(),
        "digits": model(tokens)[0].argmax(-1).tolist(),
        "placeWeights": model.place_weights(tokens)[0].tolist(),
        "wordWeights": model.word_weights(tokens)[0].tolist(),
    }


def text_cases():
    good = ["Forty-two", " nine  HUNDRED\nthousand, and seventeen. ", "zero", "one " * 11]
    bad = ["", " ,-. ", "forty million", "<pad>", "one " * 12, "fourty"]
    numbers = [*range(1200), 20_000, 100_000, 999_999, *sample_numbers(300, torch.Generator().manual_seed(1))]
    return {
        "vocabulary": VOCABULARY,
        "good": [{"text": text, "tokens": tokenize(text)} for text in good],
        "bad": [text for text in bad if raises(text)],
        "numbers": [{"words": number_words(n).split(), "number": n} for n in numbers],
        "nonsense": [
            text.split()
            for text in (
                "one one",
                "hundred",
                "thousand",
                "and",
                "and one",
                "one and",
                "twenty eleven",
                "eleven one",
                "forty and two",
                "ten hundred",
                "one thousand thousand",
                "zero one",
                "one hundred and",
                "two thousand and",
                "thousand one",
            )
        ],
    }


def raises(text: str) -> bool:
    with pytest.raises(ValueError):
        tokenize(text)
    return True


def query_cases():
    for divisor in (0.5, 2**0.5, 16.0):
        q, k, v = 3 * torch.rand(2).double() - 1.5, randn(4, 2), randn(4, 2)
        output, weights = attention(q[None] * 2**0.5 / divisor, k, v)
        state = {"q": q.tolist(), "k": k.tolist(), "v": v.tolist(), "divisor": divisor}
        yield {"state": state, "output": output[0].tolist(), "weights": weights[0].tolist()}


def scaling_cases():
    """The mean of the largest weight, over 4,000 random queries with their keys."""
    for d_k, n_keys in [(1, 2), (4, 8), (64, 8), (256, 12)]:
        scores = (torch.randn(4000, 1, d_k) @ torch.randn(4000, d_k, n_keys)).squeeze(1)
        for divided in (False, True):
            weights = (scores / d_k**0.5 if divided else scores).softmax(-1)
            expected = weights.amax(-1).mean().item()
            yield {"d_k": d_k, "n_keys": n_keys, "divided": divided, "expected": expected}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    widget = QueryKeyValue()
    numbers = {
        "runtime": runtime_cases(),
        "readers": list(reader_cases()),
        "texts": text_cases(),
        "queries": list(query_cases()),
        "scaling": list(scaling_cases()),
        "masks": mask_cases(),
        "knots": list(knot_cases()),
        "depth": DepthAndWiring().runs,
        "distance": GradientAndDistance().runs,
        "hands": list(hands_cases()),
        "dials": list(dials_cases()),
        "translator": translator_cases(),
        "wordsSha256": WORDS_SHA256,
        "widget": {name: getattr(widget, name) for name in ("tokens", "q", "k", "v", "divisor")},
        "cividis": [matplotlib.colormaps["cividis"](i / 100)[:3] for i in range(101)],
        "costs": cost_cases(),
        "tiles": tile_cases(),
        "scans": scan_cases(),
        "budgets": budget_cases(),
        "windows": list(window_cases()),
        "induction": induction_cases(),
    }
    path = tmp_path_factory.mktemp("js") / "cases.json"
    path.write_text(json.dumps(numbers, allow_nan=False), "utf8")
    return path


@pytest.mark.slow
def test_the_checksums_are_those_of_the_words():
    """JavaScript's number words are compared with these: 200,000 words are too many to write each time."""
    for side, language in enumerate(WORDS_SHA256):
        text = "\n".join(pair[side] for pair in number_pairs("en", "de"))
        assert hashlib.sha256(text.encode()).hexdigest() == WORDS_SHA256[language]


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_in_node(name, cases):
    require(NODE.exists(), "the JavaScript was not tested: there is no node beside this Python")
    command = (NODE, "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", HERE / name)
    done = subprocess.run(command, env={"TRANSFORMER_LAB_CASES": str(cases)}, capture_output=True, text=True)
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"
