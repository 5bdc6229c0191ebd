"""What the chapters on the full model train: number words, English to German, and Tatoeba's sentences.

``python -m transformer_lab.training.encoder_decoder`` measures again what takes longer than a chapter may,
and stores it, in about a quarter of an hour. ``python -m benchmarks.translation`` trains on the sentences.
"""

from collections.abc import Container, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Literal
from unittest.mock import patch

import torch
from sacrebleu.metrics import BLEU
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pairs import (
    BOS_ID,
    EOS_ID,
    NUMBER_PARTS,
    Batch,
    Pair,
    Split,
    epochs,
    mixed_epochs,
    number_pairs,
    split,
    tatoeba_pairs,
    train_tokenizer,
    word_tokenizer,
)
from ..encoder_decoder import Transformer, TransformerConfig
from ..masks import causal_mask
from ..translator import Translator
from . import results
from .loop import Trainer, TrainingConfig

LONGEST = 62  # tokens; a target has two more

# --- number words --------------------------------------------------------------------------------

NUMBERS = number_pairs("en", "de")


def number_translator(seed: int = 0) -> Translator:
    """A model of 0.46 million parameters that is to learn the numbers below 100,000 in German; untrained."""
    pairs = NUMBERS.of(NUMBERS.split().train)
    tokenizer = word_tokenizer((text for pair in pairs for text in pair), parts=NUMBER_PARTS)
    config = TransformerConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=96,
        n_heads=4,
        n_layers=2,
        d_ff=288,
        norm="pre",
        dropout=0.0,
        max_len=64,
    )
    torch.manual_seed(seed)
    return Translator(Transformer(config), tokenizer)


def number_trainer(
    translator: Translator, *, steps: int = 400, seed: int = 0, by_length: bool = False
) -> Trainer:
    """Trains ``translator`` on 20,000 numbers, in batches of about 64 pairs, of any length or of like length.

    Numbers below 100 come ten times in an epoch: else 1 pair in 200 would show that a number may be short.
    """
    numbers = NUMBERS.split().train
    pairs = NUMBERS.of([*numbers, *(n for n in numbers if n < 100 for _ in range(9))])
    if by_length:
        batches = epochs(pairs, translator.tokenizer, max_tokens=1280)
    else:
        batches = mixed_epochs(pairs, translator.tokenizer, batch_size=64)
    settings = TrainingConfig(
        steps=steps, schedule="cosine", warmup=max(1, steps // 10), lr=3e-3, smoothing=0.0, seed=seed
    )
    return Trainer(translator.model, batches, settings)


def exact_match(
    translator: Translator, pairs: Sequence[Pair], *, beam_size: int = 1, batch_size: int = 64
) -> float:
    """The share of pairs whose translation is the target, letter by letter; as for ``translate``.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("there is no pair to be translated: the list is empty")
    sources = [source for source, _ in pairs]
    translations = translator.translate(sources, beam_size=beam_size, batch_size=batch_size)
    right = sum(made == target for made, (_, target) in zip(translations, pairs, strict=True))
    return right / len(pairs)


def as_batches(translator: Translator, numbers: Sequence[int]) -> list[Batch]:
    """Numbers in tokens, one at a time: (1, S) and (1, T), the target with its beginning and its end."""
    sides = zip(*NUMBERS.of(numbers), strict=True)
    english, german = (
        [found.ids for found in translator.tokenizer.encode_batch(list(side))] for side in sides
    )
    return [
        (torch.tensor([source]), torch.tensor([[BOS_ID, *target, EOS_ID]]))
        for source, target in zip(english, german, strict=True)
    ]


# --- is attention an alignment? ------------------------------------------------------------------


def alignment(number: int) -> list[tuple[int, int]]:
    """Which English token each German token of a number below 100,000 says: pairs (German, English).

    German says the ones before the tens: "twenty one" is "ein und zwan zig", and the pairs cross. "und" and
    "and" say nothing, and have no partner.

    Raises:
        ValueError: a number out of range.

    >>> alignment(21)
    [(0, 1), (2, 0), (3, 0)]
    """
    if not 0 <= number < NUMBERS.limit:
        raise ValueError(f"the number must be from 0 to {NUMBERS.limit - 1}, got {number}")
    pairs: list[tuple[int, int]] = []
    german = english = 0

    def say(*partners: int | None, reads: int) -> None:  # for each German token the English one, from here
        nonlocal german, english
        pairs.extend((german + i, english + e) for i, e in enumerate(partners) if e is not None)
        german, english = german + len(partners), english + reads

    def below_a_thousand(n: int) -> None:
        hundreds, rest = divmod(n, 100)
        if hundreds:
            say(0, 1, reads=3 if rest else 2)  # "three hundred and", "drei hundert"
        if rest > 20 and rest % 10:
            say(1, None, 0, 0, reads=2)  # "forty two", "zwei und vier zig"
        elif rest > 12:
            say(0, 0, reads=1)  # "forty", "vier zig"; "fourteen", "vier zehn"
        elif rest or not number:
            say(0, reads=1)

    thousands, rest = divmod(number, 1000)
    if thousands:
        below_a_thousand(thousands)
        say(0, reads=2 if 0 < rest < 100 else 1)  # "thousand and"
    below_a_thousand(rest)
    return pairs


def pointing(
    translator: Translator, numbers: Sequence[int], *, of: Container[str] | None = None
) -> dict[str, list]:
    """How often cross-attention looks most at the true partner, while a German token is being written.

    Args:
        of: count these German tokens only; None: all that have a partner.

    Returns:
        For each layer, "heads": the share of tokens for each head, "mean": for the mean over the heads.
    """
    model = translator.model
    hits = torch.zeros(model.config.n_layers, model.config.n_heads + 1)
    total = 0
    for number, (source, target) in zip(numbers, as_batches(translator, numbers), strict=True):
        written = [translator.tokenizer.id_to_token(i) for i in target[0, 1:].tolist()]
        pairs = [pair for pair in alignment(number) if of is None or written[pair[0]] in of]
        if not pairs:
            continue
        german, english = torch.tensor(pairs).T
        for layer, weights in enumerate(model.cross_weights(source, target)):
            each = torch.cat([weights[0], weights[0].mean(dim=0, keepdim=True)])  # (H + 1, T, S)
            hits[layer] += (each[:, german].argmax(dim=-1) == english).sum(dim=-1)
        total += len(german)
    shares = hits / total
    return {"heads": shares[:, :-1].tolist(), "mean": shares[:, -1].tolist()}


PARTNERS = {  # which source token each target token is, of rows (B, T)
    "backwards": lambda source: torch.arange(source.shape[1] - 1, -1, -1).expand_as(source),
    "even ones first": lambda source: (source % 2).argsort(dim=1, stable=True),
}


def copying_run(
    task: str, norm: Literal["pre", "post"], seed: int, *, steps: int = 1200, length: int = 10
) -> dict[str, object]:
    """Train two layers to write a row of 20 symbols in another order, where every token has one partner.

    Returns:
        "right": the share of tokens written rightly; "heads" and "mean" as of ``pointing``.
    """
    config = TransformerConfig(
        vocab_size=23, d_model=48, n_heads=4, n_layers=2, d_ff=192, norm=norm, dropout=0.0, max_len=length + 2
    )

    def rows(n: int, generator: torch.Generator) -> Batch:
        source = torch.randint(3, config.vocab_size, (n, length), generator=generator)
        first, last = torch.full((n, 1), config.bos_id), torch.full((n, 1), config.eos_id)
        return source, torch.cat([first, source.gather(1, PARTNERS[task](source)), last], dim=1)

    torch.manual_seed(seed)
    model = Transformer(config)
    lr = {"pre": 3e-3, "post": 1e-3}[norm]  # post-norm asks for smaller rates
    settings = TrainingConfig(steps=steps, schedule="cosine", warmup=100, lr=lr, smoothing=0.0, seed=seed)
    Trainer(model, lambda generator: [rows(64, generator) for _ in range(100)], settings).train()
    source, target = rows(500, torch.Generator().manual_seed(1_000 + seed))
    with torch.no_grad():
        written = model.eval()(source, target[:, :-1]).argmax(dim=-1)
    right = (written[:, :length] == target[:, 1:-1]).float().mean().item()
    partner = PARTNERS[task](source)
    heads, mean = [], []
    for weights in model.cross_weights(source, target[:, :-1]):
        seen = weights[:, :, :length]  # the last row writes the end, which has no partner
        heads.append((seen.argmax(dim=-1) == partner[:, None]).float().mean(dim=(0, 2)).tolist())
        mean.append((seen.mean(dim=1).argmax(dim=-1) == partner).float().mean().item())
    rounded = {
        "heads": [[round(h, 3) for h in layer] for layer in heads],
        "mean": [round(m, 3) for m in mean],
    }
    return {"right": round(right, 3)} | rounded


# --- three faults that train ---------------------------------------------------------------------


def _leaking(n_queries: int, n_keys: int | None = None, **where: torch.device) -> Tensor:
    """A causal mask that is off by one: each token sees the next."""
    mask = causal_mask(n_queries, n_keys, **where)
    return mask | mask.roll(-1, dims=-2) if n_queries > 1 else mask


def _unshifted(model: nn.Module, batch: Batch, smoothing: float) -> Tensor:
    """The model reads the token that it is asked for."""
    source, target = batch
    wanted = target[:, 1:]
    scores, pad_id = model(source, wanted), model.config.pad_id
    return F.cross_entropy(
        scores.flatten(0, 1),
        wanted.flatten(),
        ignore_index=pad_id,
        label_smoothing=smoothing,
        reduction="sum",
    )


def _everything(tokens: Tensor, pad_id: int) -> Tensor:
    """A padding mask that hides nothing."""
    return torch.ones_like(tokens, dtype=torch.bool)[:, None, None]


FAULTS = {  # what takes the place of what
    "none": {},
    "the mask shows the next token": {"transformer_lab.encoder_decoder.causal_mask": _leaking},
    "the target is not shifted": {"transformer_lab.training.loop.translation_loss": _unshifted},
    "padding is not hidden": {"transformer_lab.encoder_decoder.padding_mask": _everything},
}


def fault_run(name: str, *, steps: int = 400, n_tested: int = 200, seed: int = 0) -> dict[str, object]:
    """Train the number translator with one of ``FAULTS``.

    Returns:
        "losses": the mean of every 25 steps; the share of numbers translated rightly, one at a time
        ("alone") and all as one batch ("together"), where short ones are filled up.
    """
    with ExitStack() as stack:
        for place, faulty in FAULTS[name].items():
            stack.enter_context(patch(place, faulty))
        translator = number_translator(seed)
        losses = number_trainer(translator, steps=steps, seed=seed).train()
        pairs = NUMBERS.of(NUMBERS.split().test[:n_tested])
        alone = exact_match(translator, pairs, batch_size=1)
        together = exact_match(translator, pairs, batch_size=n_tested)
    means = torch.tensor(losses).view(-1, 25).mean(dim=1)
    return {"losses": [round(x, 3) for x in means.tolist()], "alone": alone, "together": together}


# --- sentences -----------------------------------------------------------------------------------


def german_english(
    vocab_size: int = 4000, *, folder: str | PathLike[str] | None = None
) -> tuple[Split, Tokenizer]:
    """Tatoeba's pairs, of which 1,000 are for validation and 2,000 for the test, and their word pieces.

    Raises:
        FetchError: the file cannot be had.
    """
    parts = split(tatoeba_pairs("tatoeba_deu_eng", folder=folder), n_validation=1000, n_test=2000)
    return parts, train_tokenizer((text for pair in parts.train for text in pair), vocab_size)


def german_english_settings(steps: int, vocab_size: int = 4000) -> tuple[TransformerConfig, TrainingConfig]:
    """A model of 1.7 million parameters, and how it is trained: with batches of 4,096 places."""
    model = TransformerConfig(
        vocab_size=vocab_size,
        d_model=128,
        n_heads=4,
        n_layers=3,
        d_ff=384,
        norm="pre",
        max_len=LONGEST + 2,
    )
    return model, TrainingConfig(steps=steps, schedule="cosine", warmup=max(1, steps // 15), lr=2e-3)


def bleu(translator: Translator, pairs: Sequence[Pair], *, beam_size: int = 1) -> tuple[float, str]:
    """Corpus BLEU of translations against one reference each, and sacrebleu's signature: how it was counted.

    Sources: Papineni et al. (2002), https://aclanthology.org/P02-1040; Post (2018),
    https://aclanthology.org/W18-6319.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("there is no pair to be scored: the list is empty")
    metric = BLEU()
    translations = translator.translate([source for source, _ in pairs], beam_size=beam_size)
    score = metric.corpus_score(translations, [[target for _, target in pairs]]).score
    return score, str(metric.get_signature())


def batch_run(*, by_length: bool, seed: int = 0) -> list[float]:
    """The share of 500 new numbers that are right after each 100 steps, with batches of one kind."""
    translator = number_translator(seed)
    trainer = number_trainer(translator, seed=seed, by_length=by_length)
    test = NUMBERS.of(NUMBERS.split().test[:500])
    right = []
    for _ in range(4):
        trainer.train(100)
        right.append(exact_match(translator, test))
    return right


def measure() -> dict[str, object]:
    """What the chapter "The full model" reads from its stored results."""
    kinds = {"of any length": False, "by length": True}
    return {
        "batches": {
            name: [batch_run(by_length=kind, seed=seed) for seed in range(3)] for name, kind in kinds.items()
        },
        "faults": {name: fault_run(name) for name in FAULTS},
        "copying": {
            task: {norm: [copying_run(task, norm, seed) for seed in range(2)] for norm in ("pre", "post")}
            for task in PARTNERS
        },
    }


if __name__ == "__main__":
    print(results.write("encoder_decoder", measure()).name)
