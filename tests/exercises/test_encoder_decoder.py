"""The exercises of "The full model": other right answers, and what its checks say beyond the contract."""

import math
from contextlib import ExitStack
from dataclasses import replace
from statistics import fmean, median
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transformer_lab import encoder_decoder as package
from transformer_lab.attention import MultiHeadAttention
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.exercises import encoder_decoder as ex
from transformer_lab.generation import greedy
from transformer_lab.masks import causal_mask, padding_mask
from transformer_lab.positional import sinusoidal
from transformer_lab.training import encoder_decoder as training
from transformer_lab.training.loop import translation_loss

# --- right answers in other words ----------------------------------------------------------------------


def shifted_by_loops(target):
    rows = target.tolist()
    return torch.tensor([[row[:-1] for row in rows], [row[1:] for row in rows]])


def shifted_by_windows(target):
    return target.unfold(1, 2, 1).movedim(-1, 0)


def shifted_by_roll(target):
    return torch.stack([target, target.roll(-1, dims=1)])[:, :, :-1]


def embedded_by_the_package(tokens, table):
    width = table.shape[1]
    return math.sqrt(width) * F.embedding(tokens, table) + sinusoidal(tokens.shape[1], width).to(table)


def embedded_token_by_token(tokens, table):
    D = table.shape[1]
    rows = []
    for t in range(tokens.shape[1]):
        angles = [t / 10000 ** (2 * (i // 2) / D) for i in range(D)]
        code = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)]
        rows.append(table[tokens[:, t]] * D**0.5 + torch.tensor(code, dtype=table.dtype))
    return torch.stack(rows, dim=1)


def loss_by_a_hoped_for_distribution(logits, wanted, pad_id, smoothing):
    V = logits.shape[-1]
    hoped = F.one_hot(wanted, V) * (1 - smoothing) + smoothing / V
    losses = -(hoped * logits.log_softmax(-1)).sum(-1)
    real = wanted != pad_id
    return (losses * real).sum() / real.sum()


def loss_by_loops(logits, wanted, pad_id, smoothing):
    losses = []
    for row, ids in zip(logits, wanted.tolist(), strict=True):
        for scores, token in zip(row, ids, strict=True):
            if token != pad_id:
                logs = scores - scores.logsumexp(0)
                losses.append(-(1 - smoothing) * logs[token] - smoothing * logs.sum() / len(logs))
    return sum(losses) / len(losses)


def accumulated_by_shares(losses, n_tokens):
    return (n_tokens / n_tokens.sum()).to(losses.dtype) * losses


def accumulated_by_loops(losses, n_tokens):
    return torch.stack([loss * n / sum(n_tokens) for loss, n in zip(losses, n_tokens, strict=True)])


class LayerParts(nn.Module):
    """The parts of the layer, made in another order."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.down_proj, self.up_proj = nn.Linear(hidden, width), nn.Linear(width, hidden)
        self.cross_attention = MultiHeadAttention(d_model=width, n_heads=heads)
        self.self_attention = MultiHeadAttention(d_model=width, n_heads=heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.cross_norm, self.self_norm = nn.LayerNorm(width), nn.LayerNorm(width)


class LayerByTheMask(LayerParts):
    def forward(self, x, memory, source_mask):
        h = self.self_norm(x)
        y = x + self.self_attention(h, h, causal_mask(x.shape[1]))
        y = y + self.cross_attention(self.cross_norm(y), memory, source_mask.expand(-1, -1, x.shape[1], -1))
        return y + self.down_proj(torch.relu(self.up_proj(self.feed_forward_norm(y))))


class LayerTokenByToken(LayerParts):
    def forward(self, x, memory, source_mask):
        rows = []
        for t in range(1, x.shape[1] + 1):
            past = self.self_norm(x[:, :t])
            y = x[:, t - 1 : t] + self.self_attention(past[:, -1:], past)
            y = y + self.cross_attention(self.cross_norm(y), memory, source_mask)
            rows.append(y + self.down_proj(F.relu(self.up_proj(self.feed_forward_norm(y)))))
        return torch.cat(rows, dim=1)


def target_loss_by_the_library(target, table, w_q, w_k, w_v):
    x = F.embedding(target[:, :-1], table)
    x = x + F.scaled_dot_product_attention(x @ w_q, x @ w_k, x @ w_v, is_causal=True)
    return F.cross_entropy((x @ table.T).mT, target[:, 1:], reduction="none")


def target_loss_place_by_place(target, table, w_q, w_k, w_v):
    columns = []
    for t in range(target.shape[1] - 1):
        past = table[target[:, : t + 1]]
        scores = torch.einsum("bd,bsd->bs", past[:, -1] @ w_q, past @ w_k) / table.shape[1] ** 0.5
        x = past[:, -1] + torch.einsum("bs,bsd->bd", scores.softmax(-1), past @ w_v)
        columns.append(F.cross_entropy(x @ table.T, target[:, t + 1], reduction="none"))
    return torch.stack(columns, dim=1)


def pair_loss_by_the_library(source, target, table, w_q, w_k, w_v, pad_id):
    x, memory = table[target[:, :-1]], table[source]
    x = x + F.scaled_dot_product_attention(x @ w_q, memory @ w_k, memory @ w_v)
    return F.cross_entropy((x @ table.T).flatten(0, 1), target[:, 1:].flatten(), ignore_index=pad_id)


def pair_loss_of_whole_rows(source, target, table, w_q, w_k, w_v, pad_id):
    x, memory = table[target], table[source]
    scores = torch.einsum("btd,bsd->bts", x @ w_q, memory @ w_k) / x.shape[-1] ** 0.5
    logs = ((x + scores.softmax(-1) @ (memory @ w_v)) @ table.T).log_softmax(-1)[:, :-1]
    real = target[:, 1:] != pad_id
    right = logs[real].gather(-1, target[:, 1:][real][:, None])
    return -right.sum() / real.sum()


def source_read_by_the_library(x, source, table, pad_id):
    real, h = padding_mask(source, pad_id)[:, 0], table[source]
    memory = h + F.scaled_dot_product_attention(h, h, h, attn_mask=real)
    return x + F.scaled_dot_product_attention(x, memory, memory, attn_mask=real)


def source_read_without_its_padding(x, source, table, pad_id):
    out = []
    for asks, ids in zip(x, source, strict=True):
        h = table[ids[ids != pad_id]]
        memory = h + (h @ h.T / h.shape[1] ** 0.5).softmax(-1) @ h
        out.append(asks + (asks @ memory.T / h.shape[1] ** 0.5).softmax(-1) @ memory)
    return torch.stack(out)


RIGHT = {
    "shifted": [shifted_by_loops, shifted_by_windows, shifted_by_roll],
    "embedded": [embedded_by_the_package, embedded_token_by_token],
    "smoothed_loss": [loss_by_a_hoped_for_distribution, loss_by_loops],
    "accumulated": [accumulated_by_shares, accumulated_by_loops],
    "DecoderLayer": [LayerByTheMask, LayerTokenByToken],
    "target_loss": [target_loss_by_the_library, target_loss_place_by_place],
    "pair_loss": [pair_loss_by_the_library, pair_loss_of_whole_rows],
    "read_source": [source_read_by_the_library, source_read_without_its_padding],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
BY_HAND = "the code of a place is no function of what is learned, and whole numbers become real ones anyway"
AS_WIDE = "all are as wide as the model"
OF_THREE = "of three axes, 1 is -2"
UNASKED = "the last place is computed as well, and nobody asks it"
NO_GRADIENT = "a mask has no gradient"
RATES = "rates = 10000.0 ** (-torch.arange(0, D, 2)"
CODE = "return x + torch.stack([angles.sin(), angles.cos()], dim=-1)"
EQUIVALENT = {
    "embedded": {
        line: BY_HAND
        for line in (
            "rates = (10000.0 ** (-torch.arange(0, D, 2).to(table) / D)).detach()",
            f"{RATES} / D)",
            f"{RATES}.to(table) / D).detach()",
            f"{RATES}.to(table).detach() / D)",
            f"{RATES}.detach().to(table) / D)",
            f"{RATES}.to(tokens) / D)",
            f"{RATES}.to(x) / D)",
            "angles = (torch.arange(T).to(table)[:, None] * rates).detach()",
            "angles = torch.arange(T)[:, None] * rates",
            "angles = torch.arange(T).to(table).detach()[:, None] * rates",
            "angles = torch.arange(T).detach().to(table)[:, None] * rates",
            "angles = torch.arange(T).to(rates)[:, None] * rates",
            "angles = torch.arange(T).to(tokens)[:, None] * rates",
            "angles = torch.arange(T).to(x)[:, None] * rates",
            f"{CODE}.flatten(1).detach()",
            f"{CODE}.detach().flatten(1)",
            "return x + torch.stack([angles.sin().detach(), angles.cos()], dim=-1).flatten(1)",
            "return x + torch.stack([angles.sin(), angles.cos().detach()], dim=-1).flatten(1)",
        )
    },
    "accumulated": {"return sums / n_tokens.sum().detach()": "whole numbers have no gradient"},
    "DecoderLayer": {
        f"past = torch.ones(T, T, dtype=torch.bool, device=x.device){end}": NO_GRADIENT
        for end in (".tril().detach()", ".detach().tril()")
    },
    "target_loss": {
        "past = torch.ones_like(scores, dtype=torch.bool).tril().detach()": NO_GRADIENT,
        "past = torch.ones_like(scores, dtype=torch.bool).detach().tril()": NO_GRADIENT,
        "x = table[target]": UNASKED,
        "scores = x @ w_q @ (x @ w_k).transpose(1, -1) / x.shape[-1] ** 0.5": OF_THREE,
        **{
            f"scores = x @ w_q @ (x @ w_k).transpose(-2, -1) / {name}.shape[-1] ** 0.5": AS_WIDE
            for name in ("table", "w_k", "w_q", "w_v")
        },
    },
    "pair_loss": {
        "x, memory = (table[target], table[source])": UNASKED,
        **{
            f"losses = -logs.gather(-1, wanted[..., None]){end}": "an axis of length 1 stays, and the "
            "mean is over everything"
            for end in ("", ".squeeze(1)", ".squeeze(-2)")
        },
        "scores = x @ w_q @ (memory @ w_k).transpose(1, -1) / x.shape[-1] ** 0.5": OF_THREE,
        **{
            f"scores = x @ w_q @ (memory @ w_k).transpose(-2, -1) / {name}.shape[-1] ** 0.5": AS_WIDE
            for name in ("memory", "table", "w_k", "w_q", "w_v")
        },
    },
    "read_source": {
        "scores = h @ h.transpose(1, -1) / h.shape[-1] ** 0.5": OF_THREE,
        "scores = (x @ memory.transpose(1, -1) / x.shape[-1] ** 0.5).masked_fill(~real, float('-inf'))": (
            OF_THREE
        ),
        **{f"scores = h @ h.transpose(-2, -1) / {name}.shape[-1] ** 0.5": AS_WIDE for name in ("table", "x")},
        **{
            f"scores = (x @ memory.transpose(-2, -1) / {name}.shape[-1] ** 0.5)"
            ".masked_fill(~real, float('-inf'))": AS_WIDE
            for name in ("h", "memory", "table")
        },
    },
}


def test_the_chapter_has_ten_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 10 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package and with PyTorch --------------------------------------------


def test_the_numbers_of_a_decoder_layer_are_the_package_s():
    config = TransformerConfig(vocab_size=9, d_model=4, n_heads=2, d_ff=8, norm="pre")
    layers = package.DecoderLayer(config), package.EncoderLayer(config)
    counts = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    assert counts[0] == ex.decoder_layer_numbers.expected
    assert "a layer of the encoder" in ex.decoder_layer_numbers.check(counts[1]).message


def test_the_reference_of_the_embedding_agrees_with_the_package():
    for case in ex.embedded.cases():
        tokens, table = case.tensors()
        config = TransformerConfig(vocab_size=len(table), d_model=table.shape[1], n_heads=1, pad_id=0)
        model = Transformer(config).eval()
        seen = []
        model.encoder = nn.ModuleList()
        model.encoder_norm.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0]))
        model.embed.weight = nn.Parameter(table.float())
        model.encode(tokens)
        assert np.allclose(seen[0].detach().double().numpy(), case.want, atol=1e-5)


def test_the_reference_of_the_smoothed_loss_agrees_with_pytorch():
    for case in ex.smoothed_loss.cases():
        logits, wanted, pad_id, smoothing = case.tensors()
        ours = F.cross_entropy(
            logits.double().flatten(0, 1), wanted.flatten(), ignore_index=pad_id, label_smoothing=smoothing
        )
        assert np.allclose(ours.numpy(), case.want, atol=1e-6)


class Table(nn.Module):
    """Scores of a table, whatever is read before: enough of a model to have a loss."""

    def __init__(self, table):
        super().__init__()
        self.config, self.table = TransformerConfig(vocab_size=len(table)), table

    def forward(self, source, target):
        return self.table[target]


def test_shift_and_loss_together_are_the_package_s_training_loss():
    target, table = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]), torch.randn(9, 9)
    read, wanted = ex.shifted.solve(target)
    ours = ex.smoothed_loss.solve(table[read], wanted, 0, 0.1)
    theirs = translation_loss(Table(table), (target, target), smoothing=0.1)
    assert ours * 5 == pytest.approx(theirs)


def test_small_batches_have_the_gradient_of_the_large_one():
    table, target = torch.randn(9, 9, requires_grad=True), torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    whole = ex.smoothed_loss.solve(table[target[:, :-1]], target[:, 1:], 0, 0.1)
    losses = torch.stack(
        [ex.smoothed_loss.solve(table[row[:, :-1]], row[:, 1:], 0, 0.1) for row in target.split(1)]
    )
    parts = ex.accumulated.solve(losses, torch.tensor([3, 2]))
    gradients = [torch.autograd.grad(loss, table)[0] for loss in (whole, parts.sum())]
    assert torch.allclose(*gradients, atol=1e-6)


def home(name):
    """The package's name of a weight of the exercise."""
    part, rest = name.split(".", 1)
    around = {
        "self_norm": "self_attention",
        "cross_norm": "cross_attention",
        "feed_forward_norm": "feed_forward",
    }
    if part in around:
        return f"around_{around[part]}.norm.{rest}"
    return f"feed_forward.{name}" if part in ("up_proj", "down_proj") else name


def test_the_reference_of_the_decoder_layer_agrees_with_the_package():
    for case in ex.DecoderLayer.cases():
        given = dict(zip(case.inputs, case.tensors(), strict=True))
        sizes = {name: given.pop(name) for name in ("d_model", "n_heads", "d_ff")}
        x, memory, source_mask = (given.pop(name).double() for name in ("x", "memory", "source_mask"))
        config = TransformerConfig(vocab_size=9, norm="pre", dropout=0.0, **sizes)
        layer = package.DecoderLayer(config).double()
        layer.load_state_dict({home(name): weight for name, weight in given.items()})
        ours, _ = layer.step(
            x, None, layer.cross_attention.keys_values(memory), causal_mask(x.shape[1]), source_mask.bool()
        )
        assert np.allclose(ours.detach().numpy(), case.want, atol=1e-5)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (
            ex.smoothed_loss,
            lambda logits, wanted, pad_id, smoothing: F.cross_entropy(
                logits.mT, wanted, ignore_index=pad_id, label_smoothing=smoothing
            ),
        ),
        (
            ex.smoothed_loss,
            lambda logits, wanted, pad_id, smoothing: nn.CrossEntropyLoss(
                ignore_index=pad_id, label_smoothing=smoothing
            )(logits.flatten(0, 1), wanted.flatten()),
        ),
    ],
)
def test_who_calls_what_is_to_be_written_is_told_so(exercise, answer):
    result = exercise.check(answer)
    assert result.status == "not yet" and "is off limits in this exercise" in result.message, result


# --- what the symptoms say -----------------------------------------------------------------------------


def test_the_broken_decoder_sees_the_answer_and_the_repaired_one_does_not():
    """Cut the target behind the first wanted token: what place 0 sees should not change."""
    target, *weights = ex.target_loss.cases()[1].tensors()
    for loss, leaks in ((ex._Peeking.target_loss, True), (ex.target_loss.solve, False)):
        one, all_ = loss(target[:, :2], *weights)[:, 0], loss(target, *weights)[:, 0]
        further = loss(target[:, :3], *weights)[:, 0]
        assert torch.allclose(one, further) is not leaks and torch.allclose(further, all_)


def test_the_broken_loss_never_reads_the_beginning():
    source, target, *rest = ex.pair_loss.cases()[1].tensors()
    other = target.clone()
    other[:, 0] = 3
    for loss, reads in ((ex._Copying.pair_loss, False), (ex.pair_loss.solve, True)):
        assert torch.equal(loss(source, target, *rest), loss(source, other, *rest)) is not reads


def test_padding_cut_off_at_the_end_is_no_mask_where_it_stands_in_front():
    def cut(x, source, table, pad_id):
        longest = (source != pad_id).sum(dim=1).max()
        return ex.read_source.solve(x, source[:, :longest], table, pad_id)

    assert ex.read_source.check(cut).status == "not yet"


def test_answers_that_are_one_number_are_compared_without_a_place():
    twice = ex.pair_loss.check(lambda *given: 2 * ex.pair_loss.solve(*given) + 3)
    assert "the answers differ: " in twice.message and "[]" not in twice.message
    many = ex.pair_loss.check(lambda *given: ex.pair_loss.solve(*given).expand(4))
    assert "your answer has the shape (4,); it should be one number, of shape ()." in many.message


def test_with_the_broken_reader_padding_changes_what_is_found():
    x, source, table, pad_id = ex.read_source.cases()[0].tensors()
    wide = F.pad(source, (0, 3), value=pad_id)
    for read, changes in ((ex._Unmasked.read_source, True), (ex.read_source.solve, False)):
        alone, together = read(x, source, table, pad_id), read(x, wide, table, pad_id)
        assert torch.allclose(alone, together, atol=1e-6) is not changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "first_ten", "at_50", "right"),
    [
        ("none", (4.0, 5.4), (0.4, 1.0), (0.97, 1.0)),
        ("the mask shows the next token", (4.0, 5.4), (0.03, 0.2), (0.0, 0.01)),
        ("the target is not shifted", (0.2, 0.6), (0.0, 0.004), (0.0, 0.01)),
    ],
)
def test_the_training_curves_are_as_told(fault, first_ten, at_50, right):
    translator = training.number_translator()
    with ExitStack() as stack:
        for place, faulty in training.FAULTS[fault].items():
            stack.enter_context(patch(place, faulty))
        losses = training.number_trainer(translator).train()
    pairs = training.NUMBERS.of(training.NUMBERS.split().test[:100])
    measured = fmean(losses[:10]), fmean(losses[40:50]), training.exact_match(translator, pairs)
    for number, (low, high) in zip(measured, (first_ten, at_50, right), strict=True):
        assert low <= number <= high
    assert median(losses[-50:]) < 0.02


def right_when_padded(translator, pairs, width):
    """How many are translated rightly, each alone in a table of ``width`` places or more."""
    count = 0
    for text, target in pairs:
        source = translator.encode([text])
        source = F.pad(source, (0, max(0, width - source.shape[1])))
        count += translator.decode(greedy(translator.model, source)[0].tolist()) == target
    return count


@pytest.mark.slow
def test_without_the_mask_short_numbers_suffer_from_padding():
    step = package.DecoderLayer.step

    def sees_padding(self, x, past, memory, mask, source_mask):
        return step(self, x, past, memory, mask, None)

    test = training.NUMBERS.of(training.NUMBERS.split().test)
    short = sorted(test, key=lambda pair: len(pair[0].split()))[:200]
    counts = []
    with patch("transformer_lab.encoder_decoder.DecoderLayer.step", sees_padding):
        for seed in range(3):  # by the seed, a model loses many or none
            translator = training.number_translator(seed)
            training.number_trainer(translator, seed=seed, by_length=True).train()
            counts.append([right_when_padded(translator, short, width) for width in (0, 24)])
    alone, padded = map(sum, zip(*counts, strict=True))
    assert alone >= 560 and padded <= alone - 20


# --- measurements --------------------------------------------------------------------------------------


def fresh(seed, *, pairs=100, asked="wanted", counted="copies", base=math.e):
    above, shares = [], []
    for number in range(10):
        torch.manual_seed(100 * seed + number)
        model = Transformer(TransformerConfig.tiny(vocab_size=1000)).eval()
        source, target = torch.randint(3, 1000, (pairs, 12)), torch.randint(3, 1000, (pairs, 13))
        read, wanted = target[:, :-1], target[:, 1:]
        with torch.no_grad():
            scores = model(source, read)
        loss = F.cross_entropy(scores.mT, wanted if asked == "wanted" else read)
        above.append((loss.item() - math.log(1000)) / math.log(base))
        likeliest, p = scores.argmax(-1), scores.softmax(-1)
        share = {
            "copies": likeliest == read,
            "right": likeliest == wanted,
            "probability": p.gather(-1, read[..., None]),
        }
        shares.append(share[counted].float().mean().item())
    return fmean(above), fmean(shares)


@pytest.mark.parametrize("seed", range(2))
def test_any_honest_measurement_lands_in_the_range(seed):
    assert ex.fresh_model.check(fresh(seed))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"asked": "read"}, "You asked for the tokens that are read"),
        ({"counted": "right"}, "counts right guesses"),
        ({"counted": "probability"}, "is a probability"),
        ({"base": 2}, "The first number is in bits"),
    ],
)
def test_each_wrong_measurement_is_told_why(options, says):
    result = ex.fresh_model.check(fresh(3, **options))
    assert result.status == "not yet" and says in result.message


def test_other_wrong_measurements_are_told_why():
    above, copies = fresh(0)
    told = ex.fresh_model.check
    assert "the other way round" in told((copies, above)).message
    assert "the loss itself" in told((above + math.log(1000), copies)).message
    assert "turned round" in told((-above, copies)).message
    assert "percentage" in told((above, 100 * copies)).message
    assert "One of these is too large" in told((above, 1000.0)).message
    assert "Not in the range" in told((above, 0.5)).message


def test_a_post_norm_model_does_not_copy():
    """Why the exercise says pre-norm: where each sum is normalised, the token's row soon fades."""
    config = replace(TransformerConfig.tiny(vocab_size=1000), norm="post")
    torch.manual_seed(0)
    target = torch.randint(3, 1000, (100, 12))
    with torch.no_grad():
        scores = Transformer(config).eval()(target, target)
    assert (scores.argmax(-1) == target).float().mean() < 0.3
