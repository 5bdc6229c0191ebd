"""How a model writes: every way against a slow one that reads like its definition."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_lab import generation
from transformer_lab.encoder_decoder import Transformer, TransformerConfig

PAD, BOS, EOS = 0, 1, 2


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(seed=0, vocab_size=7, **settings):
    """An untrained model that is undecided between its tokens, so that searches part ways."""
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 16, "norm": "pre", "max_len": 40}
    model = Transformer(TransformerConfig(vocab_size=vocab_size, **sizes | settings))
    with torch.no_grad():
        model.embed.weight /= 3
        model.embed.weight[EOS] /= 2
    return model


def sources(n=3, vocab_size=7, seed=1):
    source = torch.randint(3, vocab_size, (n, 5), generator=torch.Generator().manual_seed(seed))
    if n > 1:
        source[1, 3:] = PAD
    return source


def log_probabilities(model, source, written):
    """Of each token of ``written`` (and of every other in its place), by a pass without any cache."""
    target = torch.tensor([[BOS, *written]])
    scores = model.eval()(source, target)[0]
    scores[:, [PAD, BOS]] = -math.inf
    return scores.log_softmax(dim=-1)


def stripped(row):
    return tuple(token for token in row.tolist() if token != PAD)


# --- greedy and by chance ------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), max_len=st.integers(1, 8))
def test_greedy_takes_the_best_token_every_time(seed, max_len):
    model, source = build(seed), sources()
    for row, tokens in zip(source, generation.greedy(model, source, max_len=max_len), strict=True):
        written = []
        while len(written) < max_len and EOS not in written:
            written.append(log_probabilities(model, row[row != PAD][None], written)[-1].argmax().item())
        assert stripped(tokens) == tuple(written)


def test_rows_end_with_the_end_then_padding_or_are_cut():
    model, source = build(3), sources(20)
    rows = generation.greedy(model, source, max_len=3).tolist()
    ended = [row for row in rows if EOS in row]
    assert ended and len(ended) < len(rows), "both kinds must occur"
    for row in ended:
        assert set(row[row.index(EOS) + 1 :]) <= {PAD}
    assert all(PAD not in row and BOS not in row for row in rows if EOS not in row)


def test_without_a_limit_it_writes_fifty_more_than_it_reads_or_what_the_model_can():
    model, source = build(max_len=100), sources(1)
    with torch.no_grad():
        model.embed.weight[EOS] = 0  # and all scores of the end with it
        model.decoder_norm.bias += 10 * model.embed.weight[3]
    assert generation.greedy(model, source).shape == (1, 55)
    short = build(max_len=20)
    short.load_state_dict(model.state_dict())
    assert generation.greedy(short, source).shape == (1, 20)


def test_sampling_follows_the_model_s_probabilities():
    model, source = build(), sources(1)
    many = source.expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    drawn = generation.sample(model, many, max_len=1, generator=generator).flatten().bincount(minlength=7)
    wanted = log_probabilities(model, source, [])[-1].exp()
    assert wanted.max() < 0.9
    torch.testing.assert_close(drawn / 20_000, wanted, atol=0.015, rtol=0)


def test_a_sample_is_repeatable_and_its_settings_matter():
    model, source = build(), sources(30)

    def drawn(seed=0, **settings):
        generator = torch.Generator().manual_seed(seed)
        return generation.sample(model, source, max_len=6, generator=generator, **settings).tolist()

    assert drawn() == drawn() != drawn(seed=1)
    assert drawn(temperature=5.0) != drawn() != drawn(top_k=2) and drawn(top_p=0.3) != drawn()
    best = generation.greedy(model, source, max_len=6).tolist()
    assert [stripped(torch.tensor(r)) for r in drawn(temperature=1e-6)] == [
        stripped(torch.tensor(r)) for r in best
    ]
    assert [stripped(torch.tensor(r)) for r in drawn(top_k=1)] == [stripped(torch.tensor(r)) for r in best]
    assert [stripped(torch.tensor(r)) for r in drawn(top_p=1e-9)] == [stripped(torch.tensor(r)) for r in best]


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.integers(-6, 6), min_size=1, max_size=6), k=st.integers(1, 8))
def test_top_k_keeps_the_k_highest_and_their_equals(scores, k):
    kept = generation.keep_top_k(torch.tensor(scores, dtype=torch.float64), k).tolist()
    least = sorted(scores, reverse=True)[: min(k, len(scores))][-1]
    assert kept == [score if score >= least else -math.inf for score in scores]


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.integers(-6, 6), min_size=1, max_size=6, unique=True), p=st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_that_reach_p(scores, p):
    x = torch.tensor(scores, dtype=torch.float64)
    kept = generation.keep_top_p(x, p)
    probabilities = x.softmax(dim=-1).sort(descending=True).values
    n = int(kept.isfinite().sum())
    assert kept.isfinite()[x.argmax()] and probabilities[:n].sum() >= p - 1e-12
    assert n == 1 or probabilities[: n - 1].sum() < p
    assert set(kept[kept.isfinite()].tolist()) == set(x.sort(descending=True).values[:n].tolist())


# --- beams ---------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_beam_of_one_is_greedy(seed):
    model, source = build(seed), sources()
    greedy = generation.greedy(model, source, max_len=7)
    beam = generation.beam_search(model, source, beam_size=1, max_len=7)
    assert [stripped(row) for row in greedy] == [stripped(row) for row in beam]


def every_translation(model, source, max_len, alpha):
    """All there are, with their scores."""
    found = {}
    for n in range(1, max_len + 1):
        for tokens in itertools.product(range(2, model.config.vocab_size), repeat=n):
            if EOS in tokens[:-1] or (n < max_len and tokens[-1] != EOS):
                continue
            steps = log_probabilities(model, source, tokens[:-1])
            total = sum(steps[i, token].item() for i, token in enumerate(tokens))
            found[tokens] = total / ((5 + n) / 6) ** alpha
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_that_is_wide_enough_finds_what_trying_everything_finds(alpha):
    model, source = build(5, vocab_size=6), sources(2, vocab_size=6)
    found = generation.beams(model, source, beam_size=130, alpha=alpha, max_len=4)
    for row, hypotheses in zip(source, found, strict=True):
        everything = every_translation(model, row[row != PAD][None], 4, alpha)
        assert len(everything) == len(hypotheses) == 1 + 3 + 9 + 27 * 4
        ranked = sorted(everything, key=lambda tokens: -everything[tokens])
        assert [h.tokens for h in hypotheses] == ranked
        for h in hypotheses:
            assert h.score == pytest.approx(everything[h.tokens], abs=1e-12)
            assert h.log_probability == pytest.approx(h.score * ((5 + len(h.tokens)) / 6) ** alpha)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), k=st.integers(2, 5))
def test_beams_are_true_distinct_ranked_and_the_same_alone_as_in_a_batch(seed, k):
    model, source = build(seed), sources()
    together = generation.beams(model, source, beam_size=k, max_len=6)
    for row, hypotheses in zip(source, together, strict=True):
        alone = generation.beams(model, row[row != PAD][None], beam_size=k, max_len=6)[0]
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        assert len({h.tokens for h in hypotheses}) == len(hypotheses) == k
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for h in hypotheses:
            steps = log_probabilities(model, row[row != PAD][None], h.tokens[:-1])
            total = sum(steps[i, token].item() for i, token in enumerate(h.tokens))
            assert h.log_probability == pytest.approx(total, abs=1e-10)


def beams_by_definition(model, source, k, max_len, alpha=0.6):
    """One sentence, one hypothesis after the other, every continuation looked at."""
    still_open, finished = {(): 0.0}, {}
    for _ in range(max_len):
        ways = {
            (*written, token): total + log_probabilities(model, source, written)[-1, token].item()
            for written, total in still_open.items()
            for token in range(2, model.config.vocab_size)
        }
        best = sorted(ways, key=lambda tokens: -ways[tokens])[: k - len(finished)]
        finished |= {tokens: ways[tokens] for tokens in best if tokens[-1] == EOS}
        still_open = {tokens: ways[tokens] for tokens in best if tokens[-1] != EOS}
    finished |= still_open
    return sorted(finished, key=lambda tokens: -finished[tokens] / ((5 + len(tokens)) / 6) ** alpha)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_beams_are_those_of_the_definition(seed, k):
    model, source = build(seed), sources()
    for row, hypotheses in zip(source, generation.beams(model, source, beam_size=k, max_len=5), strict=True):
        wanted = beams_by_definition(model, row[row != PAD][None], k, max_len=5)
        assert [h.tokens for h in hypotheses] == wanted


def test_unlikely_hypotheses_that_end_early_do_not_push_out_a_likely_one():
    model, source = build(), sources()
    sure = [3, 4, 5, 6, 3, 4, EOS]  # each follows the last with a probability of almost 1

    def step(tokens, state):
        state.length = getattr(state, "length", 0) + tokens.shape[1]
        scores = torch.zeros(*tokens.shape, 7)
        scores[..., sure[state.length - 1]] = 20.0
        scores[..., EOS] += 5.0  # what is not sure ends at once
        return scores

    class State:
        def rows(self, index):
            return self

    model.start, model.step = lambda source: State(), step
    for found in generation.beams(model, source, beam_size=4, max_len=9):
        assert len(found) == 4 and list(found[0].tokens) == sure


def test_beam_search_gives_the_best_of_beams_filled_up():
    model, source = build(3), sources(6)
    best = [h[0].tokens for h in generation.beams(model, source, beam_size=3, max_len=9)]
    rows = generation.beam_search(model, source, beam_size=3, max_len=9)
    assert [stripped(row) for row in rows] == best and rows.shape == (6, max(map(len, best)))
    assert generation.beam_search(model, source[:0], max_len=9).shape == (0, 0)


def test_longer_is_liked_better_with_a_larger_alpha():
    lengths = {alpha: [] for alpha in (0.0, 3.0)}
    for seed in range(10):
        for alpha, of in lengths.items():
            found = generation.beams(build(seed), sources(), beam_size=6, alpha=alpha, max_len=8)
            of += [len(row[0].tokens) for row in found]
    assert sum(lengths[3.0]) > sum(lengths[0.0])


# --- the model stays as it was; bad input --------------------------------------------------------


@pytest.mark.parametrize("write", [generation.greedy, generation.sample, generation.beam_search])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_while_writing_and_the_mode_comes_back(write, training):
    model, twin, source = build(dropout=0.5).train(training), build(dropout=0.0), sources()
    torch.manual_seed(0)
    first = write(model, source, max_len=5)
    torch.manual_seed(0)
    assert torch.equal(first, write(twin, source, max_len=5))
    assert model.training is training and not first.requires_grad
    with pytest.raises(ValueError, match="source rows may have"):
        write(model, torch.full((1, 41), 3), max_len=5)
    assert model.training is training


@pytest.mark.parametrize("write", [generation.greedy, generation.sample, generation.beam_search])
def test_what_is_written_can_be_trained_on(write):
    model, source = build(), sources()
    written = write(model, source, max_len=5)
    model(source, written).sum().backward()
    assert model.embed.weight.grad.abs().sum() > 0


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m, s: generation.greedy(m, s, max_len=0), "max_len must be from 1 to the model's 40, got 0"),
        (lambda m, s: generation.beams(m, s, max_len=41), "max_len must be from 1 to the model's 40, got 41"),
        (lambda m, s: generation.beams(m, s, beam_size=0), "beam_size must be 1 or more, got 0"),
        (lambda m, s: generation.sample(m, s, temperature=0), "temperature must be positive, got 0; greedy"),
        (lambda m, s: generation.sample(m, s, top_k=0), "top_k must be 1 or more, got 0"),
        (lambda m, s: generation.sample(m, s, top_p=0.0), "top_p must be above 0 and at most 1, got 0.0"),
        (lambda m, s: generation.sample(m, s, top_p=1.5), "top_p must be above 0 and at most 1, got 1.5"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call(build(), sources())
