"""Our encoder-decoder against other people's: a step of training, and writing token by token.

    make bench, or: python -m benchmarks.training --save

All have the same settings and start from the same weights; before a clock runs, all must give the same scores
and write the same tokens. They take turns, so that a busy moment hits all alike; the tables hold the medians.
Ratios travel from machine to machine better than milliseconds do.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import RESULTS, WARM_UP, circumstances, medians, milliseconds, peak_bytes
from benchmarks.peers import HuggingFace, TorchTransformer, XTransformers
from transformer_lab import device
from transformer_lab.data.pairs import Batch
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.generation import greedy
from transformer_lab.training.loop import TrainingConfig, translation_loss

TRAINING = TrainingConfig(steps=1)  # what the loop does by default, smoothing and clipping included
OURS, HUGGING_FACE = "ours", "Hugging Face's Pegasus"
PEERS: dict[str, type[nn.Module]] = {
    "torch.nn.Transformer": TorchTransformer,
    "x-transformers": XTransformers,
    HUGGING_FACE: HuggingFace,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is measured: a model, a batch to train it on, and how many tokens it then writes for one sentence.

    Args:
        config: of all contestants; sentences, longest: rows of the batch, and tokens of the longest row.
        written: tokens to write.
    """

    config: TransformerConfig
    sentences: int
    longest: int
    written: int


SIZES = {
    # As the book's number words: their vocabulary, their lengths, and about as many of them in a batch.
    "tiny": Size(config=TransformerConfig.tiny(vocab_size=73), sentences=64, longest=12, written=64),
    # For a GPU: the tiny one would keep it waiting for Python.
    "base": Size(
        config=replace(TransformerConfig.base(), norm="pre"), sentences=64, longest=128, written=128
    ),
}


# --- who takes part, and whether they do the same ------------------------------------------------


def contestants(config: TransformerConfig, where: torch.device) -> dict[str, nn.Module]:
    """Ours and its peers, with the same weights.

    The special tokens are embedded as 0. So their score is 0, which never is the highest: no sentence ends
    before its time.
    """
    torch.manual_seed(0)
    ours = Transformer(config)
    with torch.no_grad():
        ours.embed.weight[[config.pad_id, config.bos_id, config.eos_id]] = 0
    models: dict[str, nn.Module] = {OURS: ours}
    for name, build in PEERS.items():
        models[name] = build(config)
        models[name].load(ours)
    return {name: model.to(where) for name, model in models.items()}


def batch(size: Size, where: torch.device) -> Batch:
    """Sentences of chance, of half the greatest length up to all of it, filled up with padding."""
    config, generator = size.config, torch.Generator().manual_seed(0)

    def rows(length: int) -> Tensor:
        tokens = torch.randint(3, config.vocab_size, (size.sentences, length), generator=generator)
        lengths = torch.randint(length // 2, length + 1, (size.sentences, 1), generator=generator)
        return tokens.masked_fill(torch.arange(length) >= lengths, config.pad_id)

    source, target = rows(size.longest), rows(size.longest)
    target[:, 0] = config.bos_id
    return source.to(where), target.to(where)


def one_sentence(size: Size, where: torch.device) -> Tensor:
    """The first source of the batch alone: without company, it needs no padding."""
    source = batch(size, where)[0][:1]
    return source[:, source[0] != size.config.pad_id]


def write(model: nn.Module, source: Tensor, n_tokens: int) -> Tensor:
    """Always the likeliest token, by each model's own means."""
    if isinstance(model, Transformer):
        return greedy(model, source, max_len=n_tokens)
    return model.write(source, max_len=n_tokens)


@torch.no_grad()
def check(models: dict[str, nn.Module], size: Size, where: torch.device) -> None:
    """Raises AssertionError where a peer's scores or what it writes are not ours."""
    source, target = batch(size, where)
    real = target != size.config.pad_id
    found = {}
    for name, model in models.items():
        model.eval()
        found[name] = model(source, target)[real], write(model, one_sentence(size, where), size.written)
    scores, written = found.pop(OURS)
    assert written.shape == (1, size.written), f"ours ended early: {tuple(written.shape)}"
    for name, (theirs, wrote) in found.items():
        torch.testing.assert_close(theirs, scores, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(wrote, written), f"{name} writes other tokens than ours"


# --- what is measured ----------------------------------------------------------------------------


def training_step(model: nn.Module, pair: Batch) -> Callable[[], None]:
    """Forward, loss, backward, clip and Adam, as ``training.loop`` does it."""
    model.train()
    n_tokens = int((pair[1][:, 1:] != model.config.pad_id).sum())
    cuda = pair[0].device.type == "cuda"
    adam = torch.optim.Adam(model.parameters(), TRAINING.lr, betas=TRAINING.betas, eps=TRAINING.eps)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = translation_loss(model, pair, TRAINING.smoothing) / n_tokens
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), TRAINING.clip)
        adam.step()

    return step


def saved_bytes(model: nn.Module, pair: Batch) -> int:
    """What a forward pass keeps for the backward pass: storages, each once, without the weights."""
    model.train()
    known = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:  # what is returned is kept: no other takes its place in memory
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = translation_loss(model, pair, TRAINING.smoothing)
    del loss  # until here the graph has held everything
    return sum(kept.values())


def step_bytes(model: nn.Module, step: Callable[[], None], where: torch.device) -> int:
    """The most memory that a step takes, beyond the weights and Adam's averages."""
    step()  # the first makes the averages
    model.zero_grad(set_to_none=True)
    return peak_bytes(step, where)


def flops(config: TransformerConfig, pair: Batch) -> int:
    """Additions and multiplications of the matrix products of a training step, those of padding included."""
    b, s, t = *pair[0].shape, pair[1].shape[1] - 1  # the last target token is only predicted
    d, f = config.d_model, config.d_ff
    around = 4 * (s + t) * d * d + 2 * (s + t) * d * d  # projections: of self-attention, of cross-attention
    within = 2 * (s * s + t * t + t * s) * d  # scores, and values by weights
    layer = around + within + 2 * (s + t) * d * f
    forward = 2 * b * (config.n_layers * layer + t * d * config.vocab_size)
    return 3 * forward  # each product asks for two more on the way back


def peak_flops(where: torch.device, n: int = 8192, repeats: int = 20) -> float:
    """What the device computes in a second, at best: a product of two large matrices in bfloat16."""
    a, b = (torch.randn(n, n, device=where, dtype=torch.bfloat16) for _ in range(2))
    taken = [milliseconds(lambda: a @ b, where) for _ in range(WARM_UP + repeats)][WARM_UP:]
    return 2 * n**3 / (min(taken) / 1000)


# --- the tables ----------------------------------------------------------------------------------


def report(name: str, where: torch.device, repeats: int) -> str:
    """Both tables of one of ``SIZES``."""
    size = SIZES[name]
    config, models = size.config, contestants(size.config, where)
    check(models, size, where)
    about = (
        f"## {name}\n\n{config.n_layers} + {config.n_layers} layers, D = {config.d_model},"
        f" {config.n_heads} heads, F = {config.d_ff}, V = {config.vocab_size}, dropout {config.dropout},"
        f" {'bfloat16 in training, float32 in writing' if where.type == 'cuda' else 'float32'};"
        f" median of {repeats} repeats, in turns. All gave the same scores and wrote the same tokens."
    )
    return "\n\n".join(
        [about, training_table(models, size, where, repeats), writing_table(models, size, where, repeats)]
    )


def training_table(models: dict[str, nn.Module], size: Size, where: torch.device, repeats: int) -> str:
    pair = batch(size, where)
    n_tokens = sum(int((side != size.config.pad_id).sum()) for side in pair)
    steps = {name: training_step(model, pair) for name, model in models.items()}
    cuda = where.type == "cuda"
    columns = ["parameters", "memory of the step, MB" if cuda else "saved for backward, MB"]
    memory = {
        name: step_bytes(model, steps[name], where) if cuda else saved_bytes(model, pair)
        for name, model in models.items()
    }
    cells = {
        name: [
            f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}",
            f"{memory[name] / 1e6:.2f}",
        ]
        for name, model in models.items()
    }
    times = medians(steps, where, repeats)
    if cuda:
        work, peak = flops(size.config, pair), peak_flops(where)
        columns.append(f"share of the peak of {peak / 1e12:.0f} TFLOP/s")
        for name, took in times.items():
            cells[name].append(f"{work / (took / 1000) / peak:.1%}")
    title = (
        f"A training step (forward, loss, backward, clip, Adam) on {size.sentences} sentences of up to"
        f" {size.longest} tokens, {n_tokens} real tokens of source and target together:"
    )
    fastest = min(PEERS, key=times.__getitem__)
    ratio = f"The fastest peer, {fastest}, takes {times[fastest] / times[OURS]:.2f} times as long as ours."
    return "\n\n".join([title, markdown(times, n_tokens, columns, cells), ratio])


def writing_table(models: dict[str, nn.Module], size: Size, where: torch.device, repeats: int) -> str:
    source, n_tokens = one_sentence(size, where), size.written
    for model in models.values():
        model.eval()
    runs = {name: partial(write, model, source, n_tokens) for name, model in models.items()}
    times = medians(runs, where, repeats)
    cells = {name: ["no" if isinstance(model, TorchTransformer) else "yes"] for name, model in models.items()}
    title = f"Writing {n_tokens} tokens for one sentence, always the likeliest:"
    ratio = f"Ours writes {times[HUGGING_FACE] / times[OURS]:.2f} times as fast as Hugging Face's."
    return "\n\n".join([title, markdown(times, n_tokens, ["with a cache"], cells), ratio])


def markdown(times: dict[str, float], n_tokens: int, columns: list[str], cells: dict[str, list[str]]) -> str:
    """A row for each contestant: what it took, and further cells."""
    head = ["model", "ms", "time / ours", "tokens/s", *columns]
    lines = [head, ["---"] * len(head)]
    for name, took in times.items():
        numbers = [f"{took:.2f}", f"{took / times[OURS]:.2f}", f"{1000 * n_tokens / took:,.0f}"]
        lines.append([name, *numbers, *cells[name]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    where = device()
    parser = argparse.ArgumentParser(description="Our encoder-decoder against other people's.")
    chosen = ["tiny", "base"] if where.type == "cuda" else ["tiny"]
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=chosen)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--save", action="store_true", help="also write the tables to benchmarks/results/")
    options = parser.parse_args()
    head = circumstances(where, "transformers", "x-transformers")
    text = "\n\n".join([head, *(report(name, where, options.repeats) for name in options.sizes)]) + "\n"
    print(text, end="")
    if options.save:
        (RESULTS / f"training-{where.type}.md").write_text(text)


if __name__ == "__main__":
    main()
