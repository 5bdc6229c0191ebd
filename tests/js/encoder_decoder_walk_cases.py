"""What hooks on the package's Transformer see of one token, station by station; and the weights for Node."""

from collections import defaultdict

import torch
from torch import Tensor

from tests.widgets.assets import tensor
from transformer_lab.attention import attention
from transformer_lab.data.pairs import number_pairs
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.generation import greedy
from transformer_lab.masks import causal_mask
from transformer_lab.translator import Translator, pretrained
from transformer_lab.widgets._translator import export_translator
from transformer_lab.widgets.encoder_decoder_walk import station_names

WRAPPERS = {  # the module around a part, by side
    "encoder": {"self-attention": "around_attention", "feed-forward": "around_feed_forward"},
    "decoder": {
        "self-attention": "around_self_attention",
        "cross-attention": "around_cross_attention",
        "feed-forward": "around_feed_forward",
    },
}
NUMBERS = {21: None, 342: (0, 3), 99_999: (7,), 0: (0,)}  # which tokens walk, of each side; None: all


def walk_cases() -> dict:
    words = pretrained("number_words")
    return {
        "models": [model_case(words, NUMBERS), model_case(random_translator(words), {21: (0, 1)})],
        "names": [
            {"side": side, "layers": n, "names": station_names(side, n)}
            for side in ("encoder", "decoder")
            for n in (1, 2, 5)
        ],
    }


def random_translator(words: Translator) -> Translator:
    """With other sizes than the trained one, three layers, and weights that all matter."""
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=words.model.config.vocab_size, d_model=12, n_heads=3, n_layers=3, d_ff=20, norm="pre"
    )
    model = Transformer(config)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return Translator(model.eval(), words.tokenizer)


def model_case(translator: Translator, numbers: dict[int, tuple[int, ...] | None]) -> dict:
    asset = export_translator(translator)
    model = translator.model
    model.load_state_dict({name: tensor(record) for name, record in asset["tensors"].items()})
    walks = []
    for number, chosen in numbers.items():
        source = translator.encode([number_pairs()[number][0]])
        written = greedy(model, source, max_len=11)
        bos = torch.full((1, 1), model.config.bos_id)
        target = torch.cat([bos, written[:, :-1]], dim=1)
        seen = Walk(model, source, target)
        for side, ids in (("encoder", source[0]), ("decoder", target[0])):
            tokens = range(len(ids)) if chosen is None else [t for t in chosen if t < len(ids)]
            walks += [
                {
                    "source": source[0].tolist(),
                    "target": target[0].tolist(),
                    "side": side,
                    "token": token,
                    "stations": as_lists(seen.stations(side, token)),
                }
                for token in tokens
            ]
    return {"asset": asset, "walks": walks}


def as_lists(numbers):
    if isinstance(numbers, dict):
        return {name: as_lists(part) for name, part in numbers.items()}
    return numbers.tolist() if isinstance(numbers, Tensor) else numbers


class Walk:
    """One forward pass, with what went into each module and what came out."""

    def __init__(self, model: Transformer, source: Tensor, target: Tensor) -> None:
        self.model, self.ids = model, {"encoder": source[0], "decoder": target[0]}
        self.inputs: dict[str, list[Tensor]] = defaultdict(list)
        self.outputs: dict[str, list[Tensor]] = defaultdict(list)
        hooks = [
            module.register_forward_hook(self._hook(name)) for name, module in model.named_modules() if name
        ]
        with torch.no_grad():
            self.scores = model(source, target)[0]
        for hook in hooks:
            hook.remove()

    def _hook(self, name: str):
        def note(module, inputs, output) -> None:
            self.inputs[name].append(inputs[0][0])
            self.outputs[name].append(output[0])

        return note

    def stations(self, side: str, token: int) -> dict[str, dict]:
        model, first = self.model, next(iter(WRAPPERS[side].values()))
        row = self.outputs["embed"][0 if side == "encoder" else 1][token]
        scaled = row * model.config.d_model**0.5
        found = {
            "token": {"id": int(self.ids[side][token])},
            "embedding": {"row": row, "scaled": scaled},
            "position": {
                "scaled": scaled,
                "position": model.positions[token],
                "sum": self.inputs[f"{side}.0.{first}"][0][token],
            },
        }
        for layer in range(model.config.n_layers):
            for part in WRAPPERS[side]:
                for stop, numbers in self._part(side, layer, part, token).items():
                    found[f"layer {layer + 1} {part} {stop}"] = numbers
        normed = self.outputs[f"{side}_norm"][0][token]
        found["final norm"] = {"stream": self.inputs[f"{side}_norm"][0][token], "normed": normed}
        if side == "encoder":
            found["memory"] = {"memory": normed} | {
                name: torch.stack(
                    [self._memory(layer, name, token) for layer in range(model.config.n_layers)]
                )
                for name in ("keys", "values")
            }
        else:
            found["vocabulary scores"] = {"normed": normed, "scores": self.scores[token]}
            found["probabilities"] = {"probabilities": self.scores[token].softmax(dim=-1)}
        return found

    def _memory(self, layer: int, name: str, token: int) -> Tensor:
        return self.outputs[f"decoder.{layer}.cross_attention.{name[0]}_proj"][0][token]

    def _part(self, side: str, layer: int, part: str, token: int) -> dict[str, dict]:
        place = f"{side}.{layer}"
        wrapper = f"{place}.{WRAPPERS[side][part]}"
        normed = self.outputs[f"{wrapper}.norm"][0]
        stream, after = self.inputs[wrapper][0][token], self.outputs[wrapper][0][token]
        if part == "feed-forward":
            hidden = self.inputs[f"{place}.feed_forward.down_proj"][0][token]
            output = self.outputs[f"{place}.feed_forward.down_proj"][0][token]
            inside = {
                "hidden": {"normed": normed[token], "hidden": hidden},
                "output": {"hidden": hidden, "output": output},
            }
        else:
            masked = side == "decoder" and part == "self-attention"
            inside, output = self._attention(
                f"{place}.{part.replace('-', '_')}", normed[token], token, masked
            )
        ends = {"stream": stream, "output": output, "sum": after}
        return {"norm": {"stream": stream, "normed": normed[token]}, **inside, "sum": ends}

    def _attention(self, place: str, normed: Tensor, token: int, masked: bool) -> tuple[dict, Tensor]:
        q, k, v = (self.outputs[f"{place}.{letter}_proj"][0] for letter in "qkv")
        mixed = self.inputs[f"{place}.out_proj"][0][token]
        output = self.outputs[f"{place}.out_proj"][0][token]
        n_heads = self.model.config.n_heads
        heads = [x.unflatten(-1, (n_heads, -1)).transpose(0, 1) for x in (q, k, v)]  # (T, D) -> (H, T, Dh)
        mask = causal_mask(len(q))[0, 0] if masked else torch.ones(len(q), len(k), dtype=torch.bool)
        scores = heads[0] @ heads[1].transpose(1, 2) * heads[0].shape[-1] ** -0.5
        weights = attention(*heads, mask)[1][:, token]
        scores, may = scores[:, token], mask[token]
        return {
            "queries": {"normed": normed, "query": q[token], "keys": k, "values": v},
            "scores": {"query": q[token], "keys": k, "scores": scores, "may": may},
            "weights": {"scores": scores, "may": may, "weights": weights},
            "values": {"weights": weights, "may": may, "values": v, "mixed": mixed},
            "output": {"mixed": mixed, "output": output},
        }, output
