"""The translator of number words as PyTorch computes it, and number words as num2words writes them."""

import torch
from torch import Tensor

from tests.widgets.assets import load, page_scripts
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.generation import beams, greedy
from transformer_lab.training.encoder_decoder import NUMBERS
from transformer_lab.translator import Translator, pretrained
from transformer_lab.widgets._asset import exported_weights
from transformer_lab.widgets._translator import export_translator

# Of the words of 0 to 99,999, a line each: a test marked slow makes them again.
WORDS_SHA256 = {
    "en": "b69fffad9e2d3dc52067bdef558631fcb87369260dc90f18833367ec25bafd6b",
    "de": "c3204e6bf5f8ad9958c3e643206acfb8a328612d174b60174843ec7bd6582f08",
}
HEADS_OFF = (
    ("cross 0 3",),
    ("encoder 1 2",),
    ("decoder 0 0", "decoder 1 3"),
    ("encoder 0 0", "encoder 0 1", "decoder 1 1", "cross 0 0", "cross 1 2"),
)


def translator_cases() -> dict:
    translator = pretrained("number_words")
    numbers = NUMBERS.split().test
    rows = translator.encode([english for english, _ in NUMBERS.of(numbers)])
    written = greedy(translator.model, rows)
    unlike = unlike_translator()
    return {
        "asset": load(page_scripts("number_words"), "number_words"),
        "words": words_cases(),
        "greedy": [
            {"number": number, "source": source, "tokens": tokens}
            for number, source, tokens in zip(numbers, real(rows), real(written), strict=True)
        ],
        "beams": [*beam_cases(translator, rows)],
        "off": [off_case(translator, rows[i : i + 1], off) for off in HEADS_OFF for i in (0, 2, 14)],
        "unlike": {
            "asset": export_translator(unlike),
            "off": [off_case(unlike, rows[:1], off) for off in ((), ("cross 0 0", "encoder 0 1"))],
        },
    }


def real(rows: Tensor) -> list[list[int]]:
    """Rows without what fills them up."""
    return [[token for token in row if token != 0] for row in rows.tolist()]


def unlike_translator() -> Translator:
    """Untrained, and other than the page's in all that may differ: its norms stand after the parts."""
    torch.manual_seed(0)
    known = pretrained("number_words").tokenizer
    config = TransformerConfig(
        vocab_size=known.get_vocab_size(), d_model=12, n_heads=2, n_layers=1, d_ff=20, norm="post", max_len=40
    )
    translator = Translator(Transformer(config).eval(), known)
    translator.model.load_state_dict(exported_weights(export_translator(translator)))
    return translator


def words_cases() -> list[dict]:
    """All lengths, and the places where languages are irregular."""
    numbers = [*range(125), *NUMBERS.split().test[:200], 200, 999, 1000, 1001, 1016, 1100, 21_000, 99_999]
    pairs = NUMBERS.of(numbers)
    return [{"number": n, "en": en, "de": de} for n, (en, de) in zip(numbers, pairs, strict=True)]


def beam_cases(translator: Translator, rows: Tensor):
    """In double precision, so that no tie is decided by chance."""
    model = translator.model.double()
    for n, options in [
        (50, {"beam_size": 4}),
        (8, {"beam_size": 1}),
        (8, {"beam_size": 6, "alpha": 0.0}),
        (8, {"beam_size": 2, "alpha": 1.0, "max_len": 5}),
    ]:
        for source, found in zip(real(rows[:n]), beams(model, rows[:n], **options), strict=True):
            yield {
                "source": source,
                "beamSize": options["beam_size"],
                "alpha": options.get("alpha"),
                "maxLen": options.get("max_len"),
                "hypotheses": [
                    {"tokens": h.tokens, "logProbability": h.log_probability, "score": h.score} for h in found
                ],
            }
    model.float()


@torch.no_grad()
def off_case(translator: Translator, row: Tensor, off: tuple[str, ...]) -> dict:
    """A sentence and what was written, through a model some of whose heads find zeros."""
    model = translator.model.double()
    source = row[row != model.config.pad_id][None]
    target = torch.cat([torch.tensor([[model.config.bos_id]]), greedy(model, source)[:, :6]], dim=1)
    hooks = [silence(model, *name.split(" ")) for name in off]
    case = {
        "source": source[0].tolist(),
        "target": target[0].tolist(),
        "off": off,
        "encoded": model.encode(source)[0].tolist(),
        "scores": model(source, target)[0].tolist(),
        "crossWeights": [weights[0].tolist() for weights in model.cross_weights(source, target)],
    }
    for hook in hooks:
        hook.remove()
    model.float()
    return case


def silence(model: Transformer, kind: str, layer: str, head: str):
    """What one head found becomes zeros on its way into the output projection."""
    part = (model.encoder if kind == "encoder" else model.decoder)[int(layer)]
    attention = part.cross_attention if kind == "cross" else part.self_attention
    width = model.config.d_model // model.config.n_heads
    columns = slice(int(head) * width, (int(head) + 1) * width)

    def zeros(projection, arguments):
        (found,) = arguments
        found = found.clone()
        found[..., columns] = 0
        return (found,)

    return attention.out_proj.register_forward_pre_hook(zeros)
