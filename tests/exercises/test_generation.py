"""The exercises of "How a model writes": other right answers, and what checks say beyond the contract."""

import itertools
import math
from collections import Counter

import pytest
import torch
from sacrebleu.metrics import BLEU

from transformer_lab import generation, translator
from transformer_lab.exercises import generation as ex
from transformer_lab.training.encoder_decoder import NUMBERS

# --- right answers in other words ----------------------------------------------------------------------


def next_tokens_by_loops(scores, last, pad_id, eos_id):
    written = []
    for row, before in zip(scores.tolist(), last.tolist(), strict=True):
        words = [i for i in range(len(row)) if i != pad_id]
        written.append(pad_id if before in (pad_id, eos_id) else max(words, key=row.__getitem__))
    return torch.tensor(written)


def next_tokens_by_where(scores, last, pad_id, eos_id):
    lowest = scores.masked_fill(torch.arange(scores.shape[1]) == pad_id, -torch.inf)
    goes_on = ~torch.isin(last, torch.tensor([pad_id, eos_id]))
    return torch.where(goes_on, lowest.softmax(1).max(1).indices, pad_id)


def length_scores_by_loops(log_probabilities, lengths, alpha):
    pairs = zip(log_probabilities, lengths.tolist(), strict=True)
    return torch.stack([p / generation.length_penalty(n, alpha) for p, n in pairs])


def beam_step_by_sorting(totals, log_p):
    K, V = log_p.shape
    ways = sorted(itertools.product(range(K), range(V)), key=lambda way: -(totals[way[0]] + log_p[way]))
    return torch.tensor(ways[:K])


def beam_step_by_products(totals, log_p):
    reached = totals.exp().unsqueeze(-1) * log_p.exp()
    order = reached.view(-1).argsort(descending=True)[: len(totals)]
    return torch.stack(torch.unravel_index(order, log_p.shape), dim=1)


def beam_step_from_each_beam_its_k_best(totals, log_p):
    """No beam can win more than K places, so the K best of each are enough."""
    K, V = log_p.shape
    best, tokens = (log_p + totals.view(K, 1)).topk(min(K, V))
    order = best.flatten().topk(K).indices
    return torch.stack([order // best.shape[1], tokens.flatten()[order]], dim=1)


def keep_top_p_by_loops(scores, p):
    out = torch.full_like(scores, -torch.inf)
    for row, kept in zip(scores, out, strict=True):
        reached = 0.0
        for v in row.argsort(descending=True).tolist():
            kept[v] = row[v]
            reached += row.softmax(0)[v].item()
            if reached >= p:
                break
    return out


def keep_top_p_by_the_last_that_stays(scores, p):
    ordered = scores.sort(descending=True).values
    n_kept = (ordered.softmax(-1).cumsum(-1) < p).sum(-1, keepdim=True)
    return scores.where(scores >= ordered.gather(-1, n_kept), -torch.inf)


def keep_top_p_by_the_inverse_order(scores, p):
    ordered, order = torch.sort(scores, descending=True)
    sums = torch.cumsum(ordered.softmax(1), 1)
    before = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1)
    kept = (before < p).gather(1, order.argsort(1))
    return torch.where(kept, scores, torch.tensor(-torch.inf, dtype=scores.dtype))


def read_at_once(tokens, embed, positions, w_q, w_k, w_v):
    x = embed[tokens] + positions[: len(tokens)]
    past = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    attended = torch.nn.functional.scaled_dot_product_attention(
        (x @ w_q)[None], (x @ w_k)[None], (x @ w_v)[None], attn_mask=past
    )[0]
    return (x + attended) @ embed.T


def read_into_tables(tokens, embed, positions, w_q, w_k, w_v):
    T, D = len(tokens), embed.shape[1]
    keys, values, scores = embed.new_zeros(T, D), embed.new_zeros(T, D), embed.new_zeros(T, len(embed))
    for t in range(T):
        x = embed[tokens[t]] + positions[t]
        keys[t], values[t] = x @ w_k, x @ w_v
        weights = (keys[: t + 1] @ (x @ w_q) / math.sqrt(D)).softmax(0)
        scores[t] = embed @ (x + weights @ values[: t + 1])
    return scores


def read_counting_rows(tokens, embed, positions, w_q, w_k, w_v):
    keys = values = embed[:0]
    rows = []
    for token in tokens:
        start = len(rows)
        x = embed[token][None] + positions[start : start + 1]
        keys, values = torch.cat([keys, x @ w_k]), torch.cat([values, x @ w_v])
        weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(dim=-1)
        rows.append((x + weights @ values) @ embed.T)
    return torch.cat(rows)


def clipped_hits_by_counters(candidate, reference, n):
    ours, theirs = (
        Counter(zip(*(tokens.tolist()[i:] for i in range(n)), strict=False))
        for tokens in (candidate, reference)
    )
    return torch.tensor([(ours & theirs).total(), ours.total()])


def clipped_hits_by_windows(candidate, reference, n):
    if min(len(candidate), len(reference)) < n:
        return torch.tensor([0, max(0, len(candidate) - n + 1)])
    ours, theirs = candidate.unfold(0, n, 1), reference.unfold(0, n, 1)
    same = (ours[:, None] == ours).all(-1).tril().sum(1)  # how often each has come by now
    there = (ours[:, None] == theirs).all(-1).sum(1)
    return torch.stack([(same <= there).sum(), torch.tensor(len(ours))])


RIGHT = {
    "next_tokens": [next_tokens_by_loops, next_tokens_by_where],
    "length_scores": [
        length_scores_by_loops,
        lambda log_probabilities, lengths, alpha: 6**alpha * log_probabilities / (lengths + 5) ** alpha,
        lambda log_probabilities, lengths, alpha: log_probabilities * (lengths / 6 + 5 / 6) ** -alpha,
    ],
    "beam_step": [beam_step_by_sorting, beam_step_by_products, beam_step_from_each_beam_its_k_best],
    "keep_top_p": [
        keep_top_p_by_loops,
        keep_top_p_by_the_last_that_stays,
        keep_top_p_by_the_inverse_order,
        generation.keep_top_p,
    ],
    "scores_one_by_one": [read_at_once, read_into_tables, read_counting_rows],
    "clipped_hits": [clipped_hits_by_counters, clipped_hits_by_windows],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
LAST = "of two axes, 1 is the last"
SAME_ORDER = "twice as large, they stand in the same order"
EMPTY = "any table has no rows up to row 0"
AS_WIDE = "all are as wide as the model"
EQUIVALENT = {
    "next_tokens": {
        "allowed = 2 * scores.clone()": SAME_ORDER,
        "ended = (last == eos_id) ^ (last == pad_id)": "no token is both",
        "return allowed.argmax(dim=1).masked_fill(ended, pad_id)": LAST,
    },
    "beam_step": {
        "reached = 2 * (totals[:, None] + log_p)": SAME_ORDER,
        "best = (2 * reached.flatten()).topk(len(totals)).indices": SAME_ORDER,
        **{
            f"best = reached.flatten().topk(len({name})).indices": "all have a row for each beam"
            for name in ("log_p", "reached")
        },
        "V = reached.shape[1]": "both have a column for each token",
        "return torch.stack([best // V, best % V], dim=1)": LAST,
    },
    "keep_top_p": {
        "ordered, order = scores.sort(dim=1, descending=True)": LAST,
        "probabilities = ordered.softmax(dim=1)": LAST,
        "left_out = probabilities.cumsum(dim=1) - probabilities >= p": LAST,
        "left_out = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, left_out)": LAST,
        **{
            f"left_out = torch.zeros_like({name}, dtype=torch.bool).scatter(-1, order, left_out)": "all have "
            "one shape"
            for name in ("left_out", "order", "ordered", "probabilities")
        },
    },
    "scores_one_by_one": {
        **{f"keys = values = {name}[:0]": EMPTY for name in ("positions", "tokens", "w_k", "w_q", "w_v")},
        **{
            f"x = x + positions[len({name})]": "each grows by one row in each round"
            for name in ("rows", "values")
        },
        "weights = (x @ w_q @ keys.T / x.shape[1] ** 0.5).softmax(dim=1)": LAST,
        **{
            f"weights = (x @ w_q @ keys.T / {name}.shape[1] ** 0.5).softmax(dim=-1)": AS_WIDE
            for name in ("embed", "keys", "positions", "values", "w_k", "w_q", "w_v")
        },
    },
    "clipped_hits": {
        "ours, theirs = ([2 * tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)] for ids in "
        "(candidate.tolist(), reference.tolist()))": "doubled, they are equal if they were before",
        "ours, theirs = ([tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)] for ids in "
        "(candidate.tolist(), reference))": "a number is equal to the tensor that holds it",
        "hits = sum((min(ours.count(gram), theirs.count(gram)) for gram in set(theirs)))": "what only one of "
        "them has counts 0",
    },
}


def test_the_chapter_has_nine_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) >= 9 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the parts, put together ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer():
    return translator.pretrained("number_words")


@torch.no_grad()
def test_steps_of_the_exercise_write_what_greedy_search_writes(writer):
    model, config = writer.model, writer.model.config
    source = writer.encode([english for english, _ in NUMBERS.of([502, 28894, 140])])
    state, last = model.start(source), torch.full((3,), config.bos_id)
    written = []
    for _ in range(12):
        scores = model.step(last[:, None], state)[:, -1]
        last = ex.next_tokens.solve(scores, last, config.pad_id, config.eos_id)
        written.append(last)
    assert torch.equal(torch.stack(written, dim=1), generation.greedy(model, source, max_len=12))


@pytest.mark.parametrize(("K", "path", "which"), [(1, ("die", "Bank"), 0), (2, ("das", "Ufer"), 1)])
def test_a_beam_of_two_finds_what_greedy_search_walks_past(K, path, which):
    words = ("die", "das", "Bank", "Sandbank", "Bankfiliale", "Ufer", "Geldhaus")
    first = torch.tensor([[0.6, 0.4, 0, 0, 0, 0, 0]]).log()
    second = torch.tensor([[0, 0, 0.4, 0.3, 0.3, 0, 0], [0, 0, 0, 0, 0, 0.9, 0.1]]).log()
    totals = torch.tensor([0.0, -torch.inf])[:K]
    begun = ex.beam_step.solve(totals, first.expand(K, -1))[:, 1]
    beam, token = ex.beam_step.solve(first[0, begun], second[begun])[0].tolist()
    assert (words[begun[beam]], words[token]) == path
    found = (first[0, begun[beam]] + second[begun[beam], token]).exp().item()
    assert found == pytest.approx(ex.greedy_and_likeliest.expected[which])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_hits_and_totals_are_those_of_sacrebleu(n):
    candidate, reference = "the cat the cat on the mat", "the cat is on the mat"
    words = {word: i for i, word in enumerate(sorted({*candidate.split(), *reference.split()}))}
    ids = [torch.tensor([words[word] for word in text.split()]) for text in (candidate, reference)]
    counted = BLEU(tokenize="none", effective_order=True).sentence_score(candidate, [reference])
    assert ex.clipped_hits.solve(*ids, n).tolist() == [counted.counts[n - 1], counted.totals[n - 1]]


# --- what checks say beside slips ----------------------------------------------------------------------


def test_scores_that_were_changed_in_place_are_told_so():
    def without_a_copy(scores, last, pad_id, eos_id):
        scores[:, pad_id] = -torch.inf
        return scores.argmax(-1)

    message = ex.next_tokens.check(without_a_copy).message
    assert "changed its input `scores` in place" in message and "x.clone()" in message


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.next_tokens, lambda *given: ex.next_tokens.solve(*given).float()),
        (ex.beam_step, lambda totals, log_p: (totals[:, None] + log_p).flatten().topk(len(totals)).values),
        (ex.clipped_hits, lambda *given: ex.clipped_hits.solve(*given)[0] / 2),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_where_whole_numbers_are_asked_for_others_are_told_so(exercise, answer):
    result = exercise.check(answer)
    assert result.status == "not yet" and "Return whole numbers, int64" in result.message


# --- what the statements say ---------------------------------------------------------------------------


def test_the_broken_cache_is_right_for_the_first_token_and_for_no_other():
    for case in ex.scores_one_by_one.cases():
        given = ex._AlwaysFirst.scores_one_by_one(*case.tensors()).double().numpy()
        right = abs(given - case.want).max(axis=1) < 1e-4
        assert right.tolist() == [True] + [False] * (len(right) - 1)


def test_in_the_translator_the_same_slip_spoils_few_numbers_and_no_first_token(writer, monkeypatch):
    numbers = NUMBERS.split().test
    model, source = writer.model, writer.encode([english for english, _ in NUMBERS.of(numbers)])
    embed = model._embed
    right = generation.greedy(model, source)
    monkeypatch.setattr(model, "_embed", lambda tokens, name, start: embed(tokens, name, 0))
    spoiled = generation.greedy(model, source)
    assert torch.equal(right[:, 0], spoiled[:, 0])
    texts = {n: writer.decode(row) for n, row in zip(numbers, spoiled.tolist(), strict=True)}
    changed = [n for n, row in zip(numbers, right.tolist(), strict=True) if writer.decode(row) != texts[n]]
    assert len(numbers) == 1_000 and 17 <= len(changed) <= 23
    assert 99054 in changed and texts[99054] == NUMBERS[99040][1]


def test_the_percentages_of_the_article_are_right():
    assert (round(100 * (41.0 / 28.4 - 1)), round(100 * (41.8 / 28.4 - 1))) == (44, 47)


# --- measurements --------------------------------------------------------------------------------------


def probability(found):
    return math.exp(found.log_probability)


def measured(writer, numbers, of=probability, *, beam_size=1, which=0):
    """The share of right translations and the mean of what ``of`` makes of each hypothesis."""
    english, german = zip(*NUMBERS.of(numbers), strict=True)
    beams = generation.beams(writer.model, writer.encode(english), beam_size=beam_size)
    found = [row[which] for row in beams]
    right = [writer.decode(each.tokens) == words for each, words in zip(found, german, strict=True)]
    return sum(right) / len(right), sum(map(of, found)) / len(found)


def test_over_all_longer_numbers_it_is_surer_still_and_never_right(writer):
    longer = NUMBERS.split().longer
    share, mean = measured(writer, longer)
    assert len(longer) == 1_000 and share == 0 and round(mean, 2) == 0.81
    assert "more numbers than the first 50" in ex.sure_and_wrong.check((share, mean)).message


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_two_decimals_are_enough(writer, digits):
    share, mean = measured(writer, NUMBERS.split().longer[:50])
    assert ex.sure_and_wrong.check((share, round(mean, digits)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"of": lambda found: found.log_probability}, "These are logarithms."),
        ({"of": lambda found: found.score}, "These are scores"),
        ({"of": lambda found: math.exp(found.score)}, "You took `exp` of the score"),
        ({"of": lambda found: math.exp(found.log_probability / len(found.tokens))}, "of one token"),
        ({"of": lambda found: 100 * probability(found)}, "a percentage"),
        *(({"beam_size": k}, "the best of several hypotheses") for k in (2, 4, 8)),
        *(({"beam_size": k, "which": -1}, "the last, and least likely") for k in (2, 4, 8)),
    ],
)
def test_each_wrong_measurement_is_told_why(writer, options, says):
    result = ex.sure_and_wrong.check(measured(writer, NUMBERS.split().longer[:50], **options))
    assert result.status == "not yet" and says in result.message


def test_other_numbers_are_told_from_the_longer_ones(writer):
    split = NUMBERS.split()
    for numbers in (split.test[:50], split.train[:50], split.train[-50:]):
        message = ex.sure_and_wrong.check(measured(writer, numbers)).message
        assert "or others below 100,000" in message


def test_other_probabilities_of_the_same_translations_are_told_why(writer):
    english, german = zip(*NUMBERS.of(NUMBERS.split().longer[:50]), strict=True)
    source = writer.encode(english)
    alone, several = (generation.beams(writer.model, source, beam_size=k) for k in (1, 4))
    least = [
        log_p.min() for log_p in token_log_probabilities(writer, source, [row[0].tokens for row in alone])
    ]
    pad, eos = writer.model.config.pad_id, writer.model.config.eos_id
    written = [(*(i for i in row if i != pad), eos) for row in writer.encode(german).tolist()]
    right = [log_p.sum() for log_p in token_log_probabilities(writer, source, written)]
    for value, says in (
        (torch.stack(least).exp().mean(), "the least likely token"),
        (torch.stack(right).exp().mean(), "hardly thinks possible"),
        (sum(probability(found) for row in several for found in row) / 50, "the sum over several hypotheses"),
        (math.exp(sum(row[0].log_probability for row in alone) / 50), "the mean of the logarithms first"),
    ):
        assert says in ex.sure_and_wrong.check((0.0, value)).message, value


@torch.no_grad()
def token_log_probabilities(writer, source, written):
    """A row for each translation: the log-probability of each of its tokens."""
    config, longest = writer.model.config, max(map(len, written))
    rows = torch.tensor([[*row, *[config.pad_id] * (longest - len(row))] for row in written])
    begun = torch.cat([torch.full((len(rows), 1), config.bos_id), rows[:, :-1]], dim=1)
    log_p = writer.model(source, begun).log_softmax(-1).gather(-1, rows[..., None])[..., 0]
    return [log_p[i, : len(row)] for i, row in enumerate(written)]
