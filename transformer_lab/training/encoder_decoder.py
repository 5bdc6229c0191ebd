"""What the chapters on the full model train: number words, English to German, and Tatoeba's sentences."""

from collections.abc import Sequence
from os import PathLike

import torch
from sacrebleu.metrics import BLEU
from tokenizers import Tokenizer

from ..encoder_decoder import Transformer, TransformerConfig
from ..translator import Translator
from .loop import Trainer, TrainingConfig
from .pairs import (
    NUMBER_PARTS,
    Pair,
    Split,
    epochs,
    number_pairs,
    split,
    tatoeba_pairs,
    train_tokenizer,
    word_tokenizer,
)

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


def number_trainer(translator: Translator, *, steps: int = 400, seed: int = 0) -> Trainer:
    """Trains ``translator`` on 20,000 numbers, in batches of about sixty."""
    pairs = NUMBERS.of(NUMBERS.split().train)
    settings = TrainingConfig(
        steps=steps, schedule="cosine", warmup=max(1, steps // 10), lr=3e-3, smoothing=0.0, seed=seed
    )
    return Trainer(translator.model, epochs(pairs, translator.tokenizer, max_tokens=1280), settings)


def exact_match(translator: Translator, pairs: Sequence[Pair], *, beam_size: int = 1) -> float:
    """The share of pairs whose translation is the target, letter by letter.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("there is no pair to be translated: the list is empty")
    translations = translator.translate([source for source, _ in pairs], beam_size=beam_size)
    right = sum(made == target for made, (_, target) in zip(translations, pairs, strict=True))
    return right / len(pairs)


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
    """A model of 1.9 million parameters, and how it is trained: with batches of 4,096 places."""
    model = TransformerConfig(
        vocab_size=vocab_size,
        d_model=128,
        n_heads=4,
        n_layers=3,
        d_ff=512,
        norm="pre",
        max_len=LONGEST + 2,
    )
    return model, TrainingConfig(steps=steps, schedule="cosine", warmup=steps // 15, lr=2e-3)


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
