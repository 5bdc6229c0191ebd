"""The exercises of "What heads do": other right answers, and what checks say beyond the contract."""

import numpy as np
import pytest
import torch

from transformer_lab import induction as package
from transformer_lab.exercises import induction as ex
from transformer_lab.training import induction as runs

# --- right answers in other words ----------------------------------------------------------------------


def previous_by_the_package(weights):
    return package.previous_token_score(weights[None])


def previous_by_loops(weights):
    T = weights.shape[-1]
    return sum(weights[:, t, t - 1] for t in range(1, T)) / (T - 1)


def previous_by_indices(weights):
    t = torch.arange(1, weights.shape[1])
    return weights[:, t, t - 1].mean(1)


def behind_by_the_package(tokens):
    return package.after_earlier_copy(tokens[None])[0]


def behind_by_loops(tokens):
    T = len(tokens)
    table = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        for s in range(t):
            table[t, s + 1] |= tokens[s] == tokens[t]
    return table


def behind_by_the_token_before(tokens):
    before = torch.cat([tokens.new_tensor([-1]), tokens[:-1]])
    return (tokens[:, None] == before[None]).tril()


def score_by_the_package(weights, tokens):
    return package.induction_score(weights[None], tokens[None])


def score_by_a_weighted_mean(weights, tokens):
    places = behind_by_the_token_before(tokens)
    return torch.einsum("hts,ts->h", weights, places.to(weights.dtype)) / places.any(1).sum()


def knocked_by_einsum(z, weight, bias, head):
    H, Dh = z.shape[1:]
    each = torch.einsum("thd,ehd->hte", z, weight.view(-1, H, Dh))
    return each.sum(0) - each[head] + bias


def knocked_by_a_copy(z, weight, bias, head):
    z = z.clone()
    z[:, head] = 0
    return torch.nn.functional.linear(z.reshape(len(z), -1), weight, bias)


def mean_by_a_list(out, others, head):
    return sum(others[:, h].mean(0) if h == head else out[h] for h in range(len(out)))


def mean_by_where(out, others, head):
    here = (torch.arange(len(out)) == head)[:, None, None]
    return torch.where(here, others.mean(0), out).sum(0)


def settled_by_loops(streams, unembed):
    leaders = (streams @ unembed.T).argmax(-1)
    moments = []
    for t in range(streams.shape[1]):
        moment = len(streams) - 1
        while moment and leaders[moment - 1, t] == leaders[-1, t]:
            moment -= 1
        moments.append(moment)
    return torch.tensor(moments)


def settled_by_the_last_other(streams, unembed):
    leaders = torch.einsum("ltd,vd->ltv", streams, unembed).argmax(-1)
    other = leaders != leaders[-1]
    return (other * torch.arange(1, len(streams) + 1)[:, None]).amax(0)


def restored_by_cross_entropy(good, bad, patched, answer):
    losses = [
        torch.nn.functional.cross_entropy(run[-1:], torch.tensor([answer])) for run in (good, bad, patched)
    ]
    return (losses[1] - losses[2]) / (losses[1] - losses[0])


def restored_by_logarithms(good, bad, patched, answer):
    a, b, c = (run[-1, answer] - run[-1].logsumexp(0) for run in (good, bad, patched))
    return (c - b) / (a - b)


def path_by_two_keys(stream, written, w_q, w_k):
    scores = (stream @ w_q.T) @ (stream @ w_k.T - written @ w_k.T).T / len(w_q) ** 0.5
    mask = torch.ones_like(scores).tril().bool()
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


def path_by_the_package(stream, written, w_q, w_k):
    from transformer_lab.attention import attention
    from transformer_lab.masks import causal_mask

    mask = causal_mask(len(stream))[0, 0]
    return attention(stream @ w_q.T, (stream - written) @ w_k.T, stream, mask)[1]


RIGHT = {
    "previous_token_score": [previous_by_the_package, previous_by_loops, previous_by_indices],
    "behind_copies": [behind_by_the_package, behind_by_loops, behind_by_the_token_before],
    "induction_score": [score_by_the_package, score_by_a_weighted_mean],
    "without_head": [knocked_by_einsum, knocked_by_a_copy],
    "with_mean": [mean_by_a_list, mean_by_where],
    "settled": [settled_by_loops, settled_by_the_last_other],
    "restored": [restored_by_cross_entropy, restored_by_logarithms],
    "keys_without": [path_by_two_keys, path_by_the_package],
}

# The mutants of the solutions that pass, each because it computes what the solution computes.
WHOLE = "what is True or False, or a whole number, has no gradient"
SAME = "letters are compared with each other: a factor, or a sign on all, changes none that is equal"
SHARE = "a factor on all three, or a sign, falls out of the share"
EACH = "all of these have one row a token"
EQUIVALENT = {
    "induction_score": {
        "places = (tokens[:, None] == tokens[None, :]).tril(-1).roll(1, dims=1).detach()": WHOLE,
        "places = (tokens[:, None] == tokens[None, :]).tril(-1).detach().roll(1, dims=1)": WHOLE,
        "asked = places.any(dim=1).detach()": WHOLE,
    },
    "without_head": {"keep = torch.arange(z.shape[1]).detach() != head": WHOLE},
    "settled": {
        "leaders = -(streams @ unembed.T).argmax(dim=-1)": SAME,
        "leaders = 2 * (streams @ unembed.T).argmax(dim=-1)": SAME,
        "leaders = (2 * (streams @ unembed.T)).argmax(dim=-1)": SAME,
        "return len(leaders) - run": "there is a row of leaders for each moment",
        "return len(same) - run": "and one of comparisons",
    },
    "restored": {
        "top, low, now = ((-run.log_softmax(dim=1))[-1, answer] for run in (good, bad, patched))": SHARE,
        "top, low, now = ((2 * run.log_softmax(dim=1))[-1, answer] for run in (good, bad, patched))": SHARE,
    },
    "keys_without": {
        "place = 2 * torch.arange(len(stream))": "which of two places comes first stays as it was",
        "place = torch.arange(len(stream)).detach()": WHOLE,
        "place = torch.arange(len(k))": EACH,
        "place = torch.arange(len(q))": EACH,
        "place = torch.arange(len(scores))": EACH,
        "place = torch.arange(len(written))": EACH,
        "scores = q @ k.T / w_k.shape[0] ** 0.5": "queries and keys are equally wide",
    },
}


def test_the_chapter_has_eleven_exercises_of_all_four_kinds():
    kinds = [exercise.kind for exercise in ex.chapter.exercises.values()]
    assert len(kinds) == 11 and set(kinds) == {"implement", "predict", "debug", "measure"}


# --- the references agree with the package -------------------------------------------------------------


def test_the_references_of_the_scores_agree_with_the_package():
    for case in ex.previous_token_score.cases():
        (weights,) = case.tensors()
        assert np.allclose(package.previous_token_score(weights[None]).numpy(), case.want, atol=1e-5)
    for case in ex.induction_score.cases():
        weights, tokens = case.tensors()
        ours = package.induction_score(weights[None], tokens[None])
        assert np.allclose(ours.double().numpy(), case.want, atol=1e-5)


def test_the_broken_score_is_wrong_in_two_places():
    """Repairing either alone is a slip of its own."""
    answer = ex.induction_score.broken
    assert ex.induction_score.check(answer).status == "not attempted"
    assert any(slip.sentence.startswith("One fault is gone") for slip in ex.induction_score.slips)


# --- the measurement -----------------------------------------------------------------------------------


def shares(pattern, head=0, layer=0, seed=1000):
    def edit(weights):
        new = weights.clone()
        new[:, head] = pattern
        return new

    batch = runs.repeats(500, torch.Generator().manual_seed(seed))
    return runs.share_right(package.pretrained(), batch, {f"weights.{layer}": edit})


def patterns():
    def back(n):
        table = torch.zeros(24, 24)
        for t in range(24):
            table[t, min(max(t - n, 0), 23)] = 1
        return table

    even = torch.ones(24, 24).tril()
    return back, even / even.sum(1, keepdim=True)


@pytest.mark.parametrize("seed", [1000, 1, 2])
def test_any_honest_measurement_lands_in_the_range(seed):
    back, even = patterns()
    assert ex.perfect_pattern.check((shares(back(1), seed=seed), shares(even, seed=seed)))


def test_each_wrong_measurement_is_told_why():
    back, even = patterns()
    told = ex.perfect_pattern.check
    right = shares(back(1)), shares(even)
    assert "the other way round" in told(right[::-1]).message
    assert "head 1" in told((shares(back(1), head=1), shares(even, head=1))).message
    assert "second layer" in told((shares(back(1), layer=1), shares(even, layer=1))).message
    assert "at itself" in told((shares(back(0)), right[1])).message
    assert "after it" in told((shares(back(-1)), right[1])).message
    assert "two places back" in told((shares(back(2)), right[1])).message
    assert "percentages" in told((100 * right[0], 100 * right[1])).message
    assert "at most 1" in told((12.0, 3.0)).message
    assert "Not in the range" in told((0.5, 0.5)).message
