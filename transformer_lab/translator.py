"""A model that translates texts: an encoder-decoder together with the word pieces it was trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors
import torch
from jaxtyping import Int
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from .encoder_decoder import Transformer, TransformerConfig
from .generation import Hypothesis, beam_search, beams, greedy
from .int8 import from_int8, to_int8

_WEIGHTS = Path(__file__).parent / "weights"


class Translator:
    """Texts in, texts out.

    Args:
        model: what translates: a ``Transformer``, or a module that ``generation`` takes as well.
        tokenizer: the word pieces of both languages, as ``data.pairs.train_tokenizer`` finds them.

    Raises:
        ValueError: a tokenizer with more tokens than the model has embeddings.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        size, known = tokenizer.get_vocab_size(), model.config.vocab_size
        if size > known:
            raise ValueError(f"the tokenizer has {size} tokens, the model's vocab_size is {known}")
        self.model, self.tokenizer = model, tokenizer

    def encode(self, texts: Sequence[str]) -> Int[Tensor, "B S"]:
        """Token ids on the model's device, short rows filled up.

        Raises:
            ValueError: no text, or one without a token.
        """
        if not texts:
            raise ValueError("there is no text to encode: the list is empty")
        rows = [torch.tensor(found.ids) for found in self.tokenizer.encode_batch(list(texts))]
        for text, row in zip(texts, rows, strict=True):
            if not len(row):
                raise ValueError(f"there is nothing to translate in {text!r}")
        pad_id, device = self.model.config.pad_id, next(self.model.parameters()).device
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id).to(device)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids up to the end, if there is one."""
        tokens = list(tokens)
        if self.model.config.eos_id in tokens:
            tokens = tokens[: tokens.index(self.model.config.eos_id)]
        return self.tokenizer.decode(tokens)

    def translate(
        self, texts: Sequence[str], *, beam_size: int = 1, alpha: float = 0.6, batch_size: int = 64
    ) -> list[str]:
        """One translation for each text.

        Args:
            texts: sentences of the source language.
            beam_size: 1 takes the likeliest token each time; more searches as ``generation.beams`` does.
            alpha: of the length penalty, which a beam of 1 does not need.
            batch_size: texts at a time, those of like length together.

        Raises:
            ValueError: one text where several are expected, or a text without a token or longer than the
                model can read.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of texts, got the text {texts!r}: write [text]")
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        written: dict[int, str] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            source = self.encode([texts[i] for i in chosen])
            if beam_size == 1:
                rows = greedy(self.model, source)
            else:
                rows = beam_search(self.model, source, beam_size=beam_size, alpha=alpha)
            written |= {i: self.decode(row) for i, row in zip(chosen, rows.tolist(), strict=True)}
        return [written[i] for i in range(len(texts))]

    def hypotheses(
        self, text: str, *, beam_size: int = 4, alpha: float = 0.6
    ) -> list[tuple[str, Hypothesis]]:
        """What beam search finds for one text, the best first."""
        found = beams(self.model, self.encode([text]), beam_size=beam_size, alpha=alpha)[0]
        return [(self.decode(hypothesis.tokens), hypothesis) for hypothesis in found]

    def save(self, path: str | Path) -> None:
        """One file with everything: matrices in ``int8``, the rest in float32, settings, word pieces."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in self.model.state_dict().items():
            if tensor.ndim == 2:
                tensors[name], tensors[f"{name}.scales"] = to_int8(tensor.cpu())
            else:
                tensors[name] = tensor.cpu()
        config = json.dumps(asdict(self.model.config))
        save_file(tensors, path, {"config": config, "tokenizer": self.tokenizer.to_str(pretty=False)})

    @classmethod
    def load(cls, path: str | Path) -> "Translator":
        """What ``save`` stored, with its rounded weights, ready to translate.

        Raises:
            ValueError: a file that ``save`` did not write.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        if not {"config", "tokenizer"} <= set(about):
            raise ValueError(f"{path} is no translator: it lacks settings or word pieces")
        state = {
            name: from_int8(tensor, tensors[f"{name}.scales"]) if tensor.dtype == torch.int8 else tensor
            for name, tensor in tensors.items()
            if not name.endswith(".scales")
        }
        with torch.random.fork_rng(devices=[]):  # initial weights would disturb the reader's seed
            model = Transformer(TransformerConfig(**json.loads(about["config"])))
        model.load_state_dict(state)
        return cls(model.eval(), Tokenizer.from_str(about["tokenizer"]))


def pretrained(name: str) -> Translator:
    """A translator that comes with the package.

    Args:
        name: "number_words", English to German, below 100,000, trained by ``training/encoder_decoder.py``; or
            "german_english", everyday sentences, trained by ``benchmarks/translation.py``.

    Raises:
        ValueError: another name.

    >>> pretrained("number_words").translate(["forty two"])
    ['zweiundvierzig']
    """
    path = _WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        there = ", ".join(sorted(file.stem for file in _WEIGHTS.glob("*.safetensors")))
        raise ValueError(f"no translator is called {name!r}; there are {there}")
    return Translator.load(path)
