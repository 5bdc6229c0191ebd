"""The closing chapter's tools: the list of claims, and what puts them to the test.

``read`` gives the 54 statements of a popular article, each with a verdict, what is right, and where that was
read. The rest is arithmetic that a reader can check: weights from hyper-parameters, energy from operations,
BLEU from n-grams, eight-bit numbers with a scale, group advantages of reinforcement learning.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from .scaling import count_parameters

# The list of claims.

_LIST = Path(__file__).resolve().parent / "claims.json"
VERDICTS = {
    "correct": "stands as written",
    "split": "right for one case, wrong for another",
    "imprecise": "a true core, but a condition, a unit, a scope or the mechanism is missing",
    "wrong": "contradicted by the primary source, or by arithmetic",
    "unverifiable": "nothing that is public can settle it",
    "unsourced": "a number without an origin or a definition, and none was found",
}
CHECKS = {
    "primary": "read in the primary source",
    "secondary": "seen in a text that names the primary source; that one was not opened",
    "in part": "read in the primary source in part, the rest in texts that name it",
    "not checked": "not yet checked",
    "arithmetic": "worked out here",
}


@dataclass(frozen=True)
class Source:
    """Where a correct statement comes from.

    Args:
        name: author and year, and the place in the text.
        link: a web address, or nothing where there is none.
        check: a key of ``CHECKS``; note: what exactly was not checked, where only a part was.
    """

    name: str
    link: str = ""
    check: str = "primary"
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """A number that a cell of this book prints.

    Args:
        chapter: stem of the notebook; cell: id of the cell.
        find: regular expression with one group, that matches the cell's output once.
        says: a few words, in which ``{}`` stands for what the group matched.
    """

    chapter: str
    cell: str
    find: str
    says: str

    def taken_from(self, output: str) -> str:
        """``says`` with the number that stands in the cell's ``output``.

        Raises:
            ValueError: not exactly one match, or one in a line that no test compares.

        >>> Evidence("masks", "causal", r"of (\\d+) looks", "of {} pairs").taken_from("15 of 25 looks")
        'of 25 pairs'
        """
        found = list(re.finditer(self.find, output, re.MULTILINE))
        if len(found) != 1:
            raise ValueError(
                f"{self.find!r} must match the output of {self.chapter}, cell {self.cell}, once; "
                f"it matches {len(found)} times"
            )
        line = output[output.rfind("\n", 0, found[0].start(1)) + 1 :].partition("\n")[0]
        if line.lstrip().startswith("Measured here:"):
            raise ValueError(f"{line.strip()!r} differs from run to run: take a number from another line")
        return self.says.format(" ".join(found[0][1].split()))


@dataclass(frozen=True)
class Claim:
    """One statement of the article.

    Args:
        id: "C01" to "C54"; said: the statement, in English; verdict: a key of ``VERDICTS``.
        right: what may be said instead, or in addition.
        sources: where that was read; none, where there is none to be found.
        evidence: numbers of this book that bear on it; without: why there are none.
        damage: 1 to 10 for the ten that would do most damage, else 0.
    """

    id: str
    said: str
    verdict: str
    right: str
    sources: tuple[Source, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    without: str = ""
    damage: int = 0

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.id}: verdict must be one of {', '.join(VERDICTS)}; got {self.verdict!r}")
        if bool(self.evidence) == bool(self.without):
            raise ValueError(f"{self.id} needs evidence, or else a reason why there is none, and not both")
        for source in self.sources:
            if source.check not in CHECKS:
                raise ValueError(f"{self.id}: check must be one of {', '.join(CHECKS)}; got {source.check!r}")


def read(path: Path = _LIST) -> list[Claim]:
    """All claims, in the order of the article.

    Raises:
        ValueError: an unknown verdict or check, or a claim with neither evidence nor a reason.

    >>> len(read())
    54
    """
    return [
        Claim(
            **entry
            | {
                "sources": tuple(Source(**source) for source in entry.get("sources", ())),
                "evidence": tuple(Evidence(**shown) for shown in entry.get("evidence", ())),
            }
        )
        for entry in json.loads(path.read_text("utf-8"))
    ]


# Weights from hyper-parameters.


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The hyper-parameters of a Transformer that decide how many weights it has.

    Args:
        n_layers: layers L of its only stack, or of the encoder.
        n_decoder_layers: of a decoder beside it, whose layers have attention to the encoder as well.
        d_model: width D; d_ff: hidden width F.
        n_heads: H; n_kv_heads: G, if several heads share a key and a value.
        vocab_size: V; n_tables: tables of V rows, 2 where the scores are not made with the embedding.
        n_positions: rows of learned positions; n_segments: of learned kinds of sentence.
        gated: three matrices in the feed-forward network instead of two.
        biases: everywhere; key_bias: of the keys, if there are biases at all.
        norm_biases: LayerNorm, which has D numbers more than RMSNorm.
        n_outer_norms: norms that belong to no layer.
        pooler: a last matrix (D, D) with a bias, as in BERT.
        stem: weights of what makes vectors out of pixels or sound.

    Raises:
        ValueError: a size below 1, a count below 0, or heads that do not divide.
    """

    n_layers: int
    d_model: int
    d_ff: int
    n_decoder_layers: int = 0
    n_heads: int = 1
    n_kv_heads: int | None = None
    vocab_size: int = 0
    n_tables: int = 1
    n_positions: int = 0
    n_segments: int = 0
    gated: bool = False
    biases: bool = True
    key_bias: bool = True
    norm_biases: bool = True
    n_outer_norms: int = 0
    pooler: bool = False
    stem: int = 0

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "d_ff", "n_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("n_decoder_layers", "vocab_size", "n_tables", "n_positions", "n_segments", "stem"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        groups = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        if groups < 1 or self.d_model % self.n_heads or self.n_heads % groups:
            raise ValueError(
                "d_model must be a multiple of n_heads, and that one of n_kv_heads,"
                f" got {self.d_model}, {self.n_heads} and {groups}"
            )


def weights(shape: Shape) -> dict[str, int]:
    """How many weights a model of this shape has, part by part.

    >>> counted = weights(Shape(n_layers=1, d_model=512, d_ff=2048, n_heads=8))
    >>> counted["attention"], counted["feed-forward"], counted["norms"]
    (1050624, 2099712, 2048)
    """
    D, d_kv = shape.d_model, shape.d_model // shape.n_heads * (shape.n_kv_heads or shape.n_heads)
    layer = count_parameters(
        n_layers=1,
        d_model=D,
        d_ff=shape.d_ff,
        vocab_size=1,
        d_kv=d_kv,
        gated=shape.gated,
        bias=shape.biases,
        centred_norm=shape.norm_biases,
        final_norm=False,
    )
    attention = layer["attention"] - (d_kv if shape.biases and not shape.key_bias else 0)
    norm = layer["norms"] // 2
    encoders, decoders = shape.n_layers, shape.n_decoder_layers
    return {
        "embeddings": D * (shape.n_tables * shape.vocab_size + shape.n_positions + shape.n_segments),
        "attention": attention * (encoders + 2 * decoders),
        "feed-forward": layer["feed-forward"] * (encoders + decoders),
        "norms": norm * (2 * encoders + 3 * decoders + shape.n_outer_norms),
        "other": shape.stem + (D * D + D if shape.pooler else 0),
    }


def n_weights(shape: Shape) -> int:
    """All of them.

    >>> n_weights(NAMED["GPT-3"].shape)
    174604259328
    """
    return sum(weights(shape).values())


@dataclass(frozen=True)
class Named:
    """A model with a name, and how many weights its authors say it has (0: they do not say)."""

    shape: Shape
    published: float
    source: Source = field(default_factory=lambda: Source(""))


def _original(**sizes: int) -> Shape:
    return Shape(n_layers=6, n_decoder_layers=6, vocab_size=37_000, **sizes)


def _bert(n_layers: int, d_model: int, d_ff: int, n_heads: int) -> Shape:
    about = {"vocab_size": 30_522, "n_positions": 512, "n_segments": 2, "n_outer_norms": 1, "pooler": True}
    return Shape(n_layers=n_layers, d_model=d_model, d_ff=d_ff, n_heads=n_heads, **about)


def _gpt(n_layers: int, d_model: int, n_heads: int, n_positions: int, **rest: int) -> Shape:
    about = {"vocab_size": 50_257, "n_outer_norms": 1} | rest
    return Shape(
        n_layers=n_layers,
        d_model=d_model,
        d_ff=4 * d_model,
        n_heads=n_heads,
        n_positions=n_positions,
        **about,
    )


def _llama(n_layers: int, d_model: int, n_heads: int, d_ff: int, **rest: int) -> Shape:
    about = {"vocab_size": 32_000, "n_tables": 2, "n_outer_norms": 1} | rest
    plain = {"gated": True, "biases": False, "norm_biases": False}
    return Shape(n_layers=n_layers, d_model=d_model, d_ff=d_ff, n_heads=n_heads, **about, **plain)


def _vit(n_layers: int, d_model: int, d_ff: int, n_heads: int, patch: int, side: int = 224) -> Shape:
    """Patches of a picture of ``side`` by ``side`` pixels, in three colours; the stem has the class token."""
    stem = 3 * patch * patch * d_model + d_model + d_model
    n_positions = (side // patch) ** 2 + 1
    about = {"n_positions": n_positions, "n_outer_norms": 1, "stem": stem}
    return Shape(n_layers=n_layers, d_model=d_model, d_ff=d_ff, n_heads=n_heads, **about)


def _whisper(n_layers: int, d_model: int, n_heads: int) -> Shape:
    """Two convolutions of width 3 over 80 channels; the encoder's positions are not learned."""
    stem = 3 * 80 * d_model + d_model + 3 * d_model * d_model + d_model
    about = {"vocab_size": 51_865, "n_positions": 448, "n_outer_norms": 2, "key_bias": False, "stem": stem}
    return Shape(
        n_layers=n_layers,
        n_decoder_layers=n_layers,
        d_model=d_model,
        d_ff=4 * d_model,
        n_heads=n_heads,
        **about,
    )


_VASWANI = Source("Vaswani et al. 2017, Table 3", "https://arxiv.org/abs/1706.03762")
_DEVLIN = Source("Devlin et al. 2019, section 3", "https://arxiv.org/abs/1810.04805", "in part")
_RADFORD_18 = Source("Radford et al. 2018", "", "not checked")
_RADFORD_19 = Source("Radford et al. 2019", "", "not checked")
_BROWN = Source("Brown et al. 2020, Table 2.1", "https://arxiv.org/abs/2005.14165")
_TOUVRON = Source("Touvron et al. 2023, Table 2", "https://arxiv.org/abs/2302.13971")
_LLAMA_2 = Source("Touvron et al. 2023b", "https://arxiv.org/abs/2307.09288", "not checked")
_LLAMA_3 = Source("Grattafiori et al. 2024", "https://arxiv.org/abs/2407.21783", "not checked")
_DOSOVITSKIY = Source("Dosovitskiy et al. 2021, Table 1", "https://arxiv.org/abs/2010.11929", "not checked")
_RADFORD_22 = Source("Radford et al. 2022, Table 1", "https://arxiv.org/abs/2212.04356", "not checked")
_JIAO = Source("Jiao et al. 2020, Table 1", "https://arxiv.org/abs/1909.10351")

# Hyper-parameters and published sizes. The vocabulary of 2017 is "about 37,000" in the paper.
NAMED = {
    "Transformer base": Named(_original(d_model=512, d_ff=2048, n_heads=8), 65e6, _VASWANI),
    "Transformer big": Named(_original(d_model=1024, d_ff=4096, n_heads=16), 213e6, _VASWANI),
    "BERT base": Named(_bert(12, 768, 3072, 12), 110e6, _DEVLIN),
    "BERT large": Named(_bert(24, 1024, 4096, 16), 340e6, _DEVLIN),
    "TinyBERT, 4 layers": Named(_bert(4, 312, 1200, 12), 14.5e6, _JIAO),
    "GPT-1": Named(_gpt(12, 768, 12, 512, vocab_size=40_478, n_outer_norms=0), 117e6, _RADFORD_18),
    "GPT-2 XL": Named(_gpt(48, 1600, 25, 1024), 1.5e9, _RADFORD_19),
    "GPT-3": Named(_gpt(96, 12_288, 96, 2048), 175e9, _BROWN),
    "LLaMA 7B": Named(_llama(32, 4096, 32, 11_008), 6.7e9, _TOUVRON),
    "LLaMA 13B": Named(_llama(40, 5120, 40, 13_824), 13.0e9, _TOUVRON),
    "LLaMA 33B": Named(_llama(60, 6656, 52, 17_920), 32.5e9, _TOUVRON),
    "LLaMA 65B": Named(_llama(80, 8192, 64, 22_016), 65.2e9, _TOUVRON),
    "Llama 2 70B": Named(_llama(80, 8192, 64, 28_672, n_kv_heads=8), 70e9, _LLAMA_2),
    "Llama 3.1 405B": Named(
        _llama(126, 16_384, 128, 53_248, n_kv_heads=8, vocab_size=128_256), 405e9, _LLAMA_3
    ),
    "ViT-B/16": Named(_vit(12, 768, 3072, 12, 16), 86e6, _DOSOVITSKIY),
    "ViT-L/16": Named(_vit(24, 1024, 4096, 16, 16), 307e6, _DOSOVITSKIY),
    "ViT-H/14": Named(_vit(32, 1280, 5120, 16, 14), 632e6, _DOSOVITSKIY),
    "Whisper tiny": Named(_whisper(4, 384, 6), 39e6, _RADFORD_22),
    "Whisper large": Named(_whisper(32, 1280, 20), 1550e6, _RADFORD_22),
}


# Energy, and what distillation saves.

Number = int | float


def training_energy(flop: Number, *, flops_per_second: Number, watts: Number, overhead: Number) -> float:
    """Megawatt-hours of a training run: the time of all accelerators together, times what one of them draws.

    Args:
        flop: operations in all; flops_per_second: that one accelerator keeps up, not its peak.
        watts: that one accelerator draws, with its share of the machine around it.
        overhead: of the building, as a factor (power usage effectiveness, PUE): 1 would be none.

    Source: Patterson et al. (2021), https://arxiv.org/abs/2104.10350.

    Raises:
        ValueError: a number that is not positive, or an overhead below 1.

    >>> training_energy(3.6e18, flops_per_second=1e12, watts=500.0, overhead=1.2)  # 1000 hours, 0.5 kW
    0.6
    """
    for name, value in (("flop", flop), ("flops_per_second", flops_per_second), ("watts", watts)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if not overhead >= 1:
        raise ValueError(f"overhead multiplies the energy, so it is 1 or more, got {overhead}")
    hours = flop / flops_per_second / 3600
    return hours * watts / 1e6 * overhead


def energy_band(
    flop: Number,
    *,
    flops_per_second: tuple[Number, Number],
    watts: tuple[Number, Number],
    overhead: tuple[Number, Number],
) -> tuple[Number, Number]:
    """The lowest and the highest ``training_energy`` when each input lies between its two bounds.

    Raises:
        ValueError: as ``training_energy``, or bounds in the wrong order.

    >>> energy_band(3.6e18, flops_per_second=(1e12, 2e12), watts=(500.0, 600.0), overhead=(1.0, 1.25))
    (0.25, 0.75)
    """
    for name, (low, high) in (
        ("flops_per_second", flops_per_second),
        ("watts", watts),
        ("overhead", overhead),
    ):
        if not low <= high:
            raise ValueError(f"{name} must be (lowest, highest), got {(low, high)}")
    least = training_energy(flop, flops_per_second=flops_per_second[1], watts=watts[0], overhead=overhead[0])
    most = training_energy(flop, flops_per_second=flops_per_second[0], watts=watts[1], overhead=overhead[1])
    return least, most


def distilling(teacher: Number, student: Number) -> float:
    """Operations that distillation spends on one sequence: the teacher forwards, the student there and back.

    Forwards and backwards together count three times the forward pass.

    Args:
        teacher, student: of one forward pass.

    Raises:
        ValueError: a number that is not positive.

    >>> distilling(22.5, 1.2)  # in GFLOP, as TinyBERT's authors count: 22.5 + 3 x 1.2
    26.1
    """
    if not (teacher > 0 and student > 0):
        raise ValueError(f"operations must be positive, got {teacher} and {student}")
    return teacher + 3 * student


def break_even(n_sequences: Number, *, teacher: Number, student: Number) -> float:
    """After how many uses the student has saved what its distillation cost; the teacher's training is free.

    Args:
        n_sequences: read while distilling; teacher, student: operations of one forward pass.

    Raises:
        ValueError: no sequence, or a student that is not cheaper than its teacher.

    >>> break_even(100, teacher=10.0, student=1.0)  # 100 x 13 spent, 9 saved each time
    144.44444444444446
    """
    if not n_sequences > 0:
        raise ValueError(f"n_sequences must be positive, got {n_sequences}")
    if not student < teacher:
        raise ValueError(f"the student must be cheaper than the teacher, got {student} and {teacher}")
    return n_sequences * distilling(teacher, student) / (teacher - student)


# BLEU.

Tokens = Sequence[Hashable]


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each run of ``n`` tokens stands in ``tokens``.

    >>> ngrams("a b a b".split(), 2)
    Counter({('a', 'b'): 2, ('b', 'a'): 1})
    """
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def brevity_penalty(n_candidate: int, n_reference: int) -> float:
    """The factor for translations that are shorter than their references, in tokens.

    Raises:
        ValueError: no token on either side.

    >>> brevity_penalty(12, 10), round(brevity_penalty(10, 15), 4)
    (1.0, 0.6065)
    """
    if n_candidate < 1 or n_reference < 1:
        raise ValueError(f"both sides need a token, got {n_candidate} and {n_reference}")
    return min(1.0, math.exp(1 - n_reference / n_candidate))


def corpus_bleu(candidates: Sequence[Tokens], references: Sequence[Tokens], *, longest: int = 4) -> float:
    """BLEU of a whole test set, 0 to 100, with one reference a sentence and no smoothing.

    Hits and n-grams are added up over all sentences, and only then divided: it is no mean over sentences.

    Args:
        candidates: translations, each a list of tokens; references: as many.
        longest: n-grams of 1 to ``longest`` tokens count.

    Returns:
        0 where some length has no hit at all.

    Source: Papineni et al. (2002), https://aclanthology.org/P02-1040.

    Raises:
        ValueError: no sentence, not a reference for each, or ``longest`` below 1.

    >>> round(corpus_bleu(["a b c d e".split()], ["a b c d f".split()]), 2)
    66.87
    """
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            f"each candidate needs a reference, got {len(candidates)} candidates"
            f" and {len(references)} references"
        )
    if longest < 1:
        raise ValueError(f"longest must be 1 or more, got {longest}")
    logs = []
    for n in range(1, longest + 1):
        hits = total = 0
        for candidate, reference in zip(candidates, references, strict=True):
            ours = ngrams(candidate, n)
            hits += (ours & ngrams(reference, n)).total()  # & takes the smaller count of each: clipped
            total += ours.total()
        if hits == 0:
            return 0.0
        logs.append(math.log(hits / total))
    lengths = (sum(map(len, side)) for side in (candidates, references))
    return 100 * brevity_penalty(*lengths) * math.exp(sum(logs) / longest)


# Numbers of eight bits.

FP8_LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57_344.0}


def fp8_scale(x: Float[Tensor, "..."], dtype: torch.dtype = torch.float8_e4m3fn) -> Float[Tensor, ""]:
    """The factor that takes the largest number of ``x`` to the largest of ``dtype``; 1 where all are zero.

    Raises:
        ValueError: a type that is not one of the two of eight bits.

    >>> fp8_scale(torch.tensor([0.5, -2.0])).item()
    224.0
    """
    _check_fp8(dtype)
    largest = x.detach().abs().amax() if x.numel() else x.new_zeros(())
    return torch.where(largest > 0, FP8_LARGEST[dtype] / largest, torch.ones_like(largest))


def through_fp8(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, ""] | None = None,
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> Float[Tensor, "..."]:
    """What is left of ``x`` once stored in eight bits: multiplied by ``scale``, rounded, divided again.

    What is too large becomes the largest number there is.

    Raises:
        ValueError: a type that is not one of the two of eight bits.

    >>> through_fp8(torch.tensor([1.0, 1.06, 500.0, 0.0005])).tolist()
    [1.0, 1.0, 448.0, 0.0]
    """
    _check_fp8(dtype)
    scale = torch.ones_like(x.sum()) if scale is None else scale
    largest = FP8_LARGEST[dtype]
    return (x * scale).clamp(-largest, largest).to(dtype).to(x.dtype) / scale


def _check_fp8(dtype: torch.dtype) -> None:
    if dtype not in FP8_LARGEST:
        raise ValueError(f"dtype must be float8_e4m3fn or float8_e5m2, got {dtype}")


# Reinforcement learning with groups (GRPO).


def group_advantages(rewards: Float[Tensor, "B N"], kind: str = "mean and spread") -> Float[Tensor, "B N"]:
    """How much better each of N answers to one question is than the others.

    Args:
        rewards: a row for each question. (N here counts answers.)
        kind: "mean and spread": the row's mean taken away, divided by its standard deviation, as in GRPO;
            "mean": not divided; "none": the rewards themselves.

    Returns:
        Zeros for a row in which all rewards are alike, unless ``kind`` is "none".

    Source: Shao et al. (2024), https://arxiv.org/abs/2402.03300.

    Raises:
        ValueError: an unknown kind.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "mean").tolist()
    [[0.5, -0.5, -0.5, 0.5]]
    """
    if kind not in ("mean and spread", "mean", "none"):
        raise ValueError(f'kind must be "mean and spread", "mean" or "none", got {kind!r}')
    if kind == "none":
        return rewards
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if kind == "mean":
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6)


def grpo_loss(
    new: Float[Tensor, "B T"],
    old: Float[Tensor, "B T"],
    reference: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B"],
    *,
    clip: float = 0.2,
    kl_weight: float = 1e-3,
) -> Float[Tensor, ""]:
    """What GRPO makes small: answers with an advantage become likelier, within bounds.

    Args:
        new: log-probabilities of the tokens that were written, by the model that learns; old: by the model
            that wrote them; reference: by the model before reinforcement.
        advantages: one an answer.
        clip: beyond 1 ± clip the ratio of new to old earns nothing more.
        kl_weight: of the distance to the reference, which is 0 or more for each token.

    The ratio is taken token by token, as is usual in code. Source: Shao et al. (2024), equations 3 and 4.

    >>> zero = torch.zeros(1, 2)
    >>> grpo_loss(zero, zero, zero, torch.tensor([2.0])).item()
    -2.0
    """
    ratio = (new - old).exp()
    gain = advantages[:, None]
    bounded = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    apart = (reference - new).exp() - (reference - new) - 1
    return -(bounded - kl_weight * apart).mean()


# Fewer products than the definition.


def strassen(a: Float[Tensor, "D D"], b: Float[Tensor, "D D"]) -> tuple[Float[Tensor, "D D"], int]:
    """The product of two square matrices, and how many products of single numbers it took.

    Args:
        a, b: of width 1, 2, 4, 8 and so on.

    Source: Strassen (1969), https://doi.org/10.1007/BF02165411.

    Raises:
        ValueError: a width that is no power of two.

    >>> strassen(torch.eye(4), torch.eye(4))[1]
    49
    """
    n = len(a)
    if n & (n - 1):
        raise ValueError(f"the width must be a power of two, got {n}")
    if n == 1:
        return a * b, 1
    a11, a12, a21, a22 = (q for half in a.chunk(2) for q in half.chunk(2, dim=1))
    b11, b12, b21, b22 = (q for half in b.chunk(2) for q in half.chunk(2, dim=1))
    factors = (
        (a11 + a22, b11 + b22),
        (a21 + a22, b11),
        (a11, b12 - b22),
        (a22, b21 - b11),
        (a11 + a12, b22),
        (a21 - a11, b11 + b12),
        (a12 - a22, b21 + b22),
    )
    products, counts = zip(*(strassen(left, right) for left, right in factors), strict=True)
    m1, m2, m3, m4, m5, m6, m7 = products
    top = torch.cat([m1 + m4 - m5 + m7, m3 + m5], dim=1)
    return torch.cat([top, torch.cat([m2 + m4, m1 - m2 + m3 + m6], dim=1)]), sum(counts)
