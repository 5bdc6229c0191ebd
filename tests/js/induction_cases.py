"""What the model of attention alone says and where it looks, with and without heads, in double precision."""

import torch

from transformer_lab.induction import (
    VOCABULARY,
    after_earlier_copy,
    attention_only,
    induction_score,
    knock_out,
    pretrained,
    previous_token_score,
    trace,
)
from transformer_lab.widgets._asset import exported_weights
from transformer_lab.widgets.induction_heads import export_induction

TEXTS = ("shortenshort", "crystalcryst", "abxacya", "aaaa", "a", "hellohello", "qwertyuiopasqwertyuiopas")
OFF = ([], [(0, 0)], [(1, 1)], [(0, 1), (1, 0)], [(1, 0), (1, 1)], [(0, 0), (0, 1), (1, 0), (1, 1)])


def induction_cases() -> list[dict]:
    with torch.no_grad():
        return list(models())


def models():
    trained, fresh, extreme = pretrained(), attention_only(), attention_only(3)
    for layer in extreme.layers:  # scores in the hundreds: a softmax that is 0 or 1
        layer.attention.q_proj.weight.data *= 300
    for model in (trained, fresh, extreme):
        asset = export_induction(model)
        model.load_state_dict(exported_weights(asset))
        model.double()
        yield {"asset": asset, "reads": [read(model, text, heads) for text in TEXTS for heads in OFF]}


def read(model, text: str, heads) -> dict:
    tokens = torch.tensor([[VOCABULARY.index(letter) for letter in text]])
    run = trace(model, tokens, knock_out(heads))
    layers = range(len(model.layers))
    weights = [run[f"weights.{number}"] for number in layers]
    twice = after_earlier_copy(tokens).any().item()
    return {
        "text": text,
        "tokens": tokens[0].tolist(),
        "off": [[head for at, head in heads if at == number] for number in layers],
        "probabilities": run["logits"][0].softmax(dim=-1).tolist(),
        "weights": [w[0].tolist() for w in weights],
        "previous": [previous_token_score(w).tolist() for w in weights] if len(text) > 1 else None,
        "induction": [induction_score(w, tokens).tolist() for w in weights] if twice else None,
    }
