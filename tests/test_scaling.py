"""Counting, fitting, resampling: held to models of Hugging Face, to points of known laws, and to search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab import scaling
from transformer_lab.models.language_model import LanguageModel, LanguageModelConfig


def learned(module):
    return sum(p.numel() for p in module.parameters())


# --- parameters ------------------------------------------------------------------------------------


def test_a_block_by_hand():
    """D = 2, F = 3: four 2 by 2 matrices with 2 biases each; 2·3 + 3 + 3·2 + 2; three norms of 4."""
    counted = scaling.count_parameters(n_layers=1, d_model=2, d_ff=3, vocab_size=5, n_positions=7)
    assert counted == {"embedding": 24, "attention": 24, "feed-forward": 17, "norms": 12, "output": 0}
    assert scaling.without_embedding(counted) == 53


def test_narrow_keys_have_narrow_biases():
    """D = 4, keys 2 wide: two matrices of 4 by 4 with biases of 4, two of 4 by 2 with biases of 2."""
    counted = scaling.count_parameters(n_layers=1, d_model=4, d_ff=1, vocab_size=1, d_kv=2)
    assert counted["attention"] == 2 * (16 + 4) + 2 * (8 + 2)


@given(
    n_layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    d_ff=st.integers(1, 9),
    vocab_size=st.integers(1, 9),
    positions=st.sampled_from(["rope", "learned"]),
)
def test_the_book_s_language_model_has_as_many(n_layers, heads, d_ff, vocab_size, positions):
    sizes = {"n_layers": n_layers, "d_model": 4 * heads, "d_ff": d_ff, "vocab_size": vocab_size}
    model = LanguageModel(LanguageModelConfig(**sizes, n_heads=heads, positions=positions, max_len=11))
    counted = scaling.count_parameters(**sizes, n_positions=11 if positions == "learned" else 0)
    assert sum(counted.values()) == learned(model)
    assert scaling.without_embedding(counted) == learned(model.layers) + learned(model.norm)


def test_hugging_face_s_gpt2_has_as_many():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=17, n_positions=9, n_embd=8, n_layer=3, n_head=2, n_inner=20)
    counted = scaling.count_parameters(n_layers=3, d_model=8, d_ff=20, vocab_size=17, n_positions=9)
    assert sum(counted.values()) == learned(GPT2LMHeadModel(config))


@pytest.mark.parametrize("tied", [True, False])
def test_hugging_face_s_llama_has_as_many(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=17,
        hidden_size=8,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    counted = scaling.count_parameters(
        n_layers=3,
        d_model=8,
        d_ff=20,
        vocab_size=17,
        d_kv=4,
        gated=True,
        bias=False,
        centred_norm=False,
        tied=tied,
    )
    assert sum(counted.values()) == learned(LlamaForCausalLM(config))


def test_hugging_face_s_bert_has_as_many_besides_what_it_puts_around_the_blocks():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
    model = BertModel(BertConfig(vocab_size=17, max_position_embeddings=9, type_vocab_size=2, **sizes))
    counted = scaling.count_parameters(
        n_layers=3, d_model=8, d_ff=20, vocab_size=17, n_positions=9, final_norm=False
    )
    segments, first_norm, pooler = 2 * 8, 2 * 8, 8 * 8 + 8
    assert sum(counted.values()) + segments + first_norm + pooler == learned(model)


# --- laws ------------------------------------------------------------------------------------------


def test_hoffmann_s_law_flattens_out_where_data_are_given():
    """At D = 300e9 no model gets below 1.941, the loss that this law gives an endless one."""
    losses = [round(scaling.HOFFMANN(10.0**e, 300e9), 3) for e in range(8, 14)]
    assert losses == [2.716, 2.295, 2.103, 2.015, 1.975, 1.957]
    assert round(1.69 + 410.7 / 300e9**0.28, 3) == round(scaling.HOFFMANN(math.inf, 300e9), 3) == 1.941


@given(exponent=st.floats(17.0, 26.0))
def test_the_optimum_spends_the_budget_and_nothing_beside_it_is_better(exponent):
    flops = 10**exponent
    n, d = scaling.HOFFMANN.optimum(flops)
    assert scaling.training_flops(n, d) == pytest.approx(flops)
    best = scaling.HOFFMANN(n, d)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert scaling.HOFFMANN(n * factor, d / factor) > best


def test_the_optimum_by_search_over_a_fine_grid():
    law = scaling.JointLaw(floor=0.5, of_parameters=40.0, alpha=0.5, of_data=90.0, beta=0.3)
    tried = torch.logspace(2, 9, 700_001, dtype=torch.float64)
    n = tried[law(tried, 1e12 / 6 / tried).argmin()].item()
    assert law.optimum(1e12)[0] == pytest.approx(n, rel=1e-3)


def test_kaplan_s_law_in_words_of_the_paper():
    assert scaling.kaplan(2e9) / scaling.kaplan(1e9) == pytest.approx(2**-0.076)
    assert scaling.kaplan(1e30, 1e9) == pytest.approx((5.4e13 / 1e9) ** 0.095, rel=1e-9)
    # 8 times the model and 8 ** 0.74 = 4.7 times the data: both terms fall alike ("roughly 5x")
    n, d, grown = 1e9, 1e10, 8 ** (0.076 / 0.095)
    assert scaling.kaplan(8 * n, grown * d) == pytest.approx(8**-0.076 * scaling.kaplan(n, d))


# --- fits ------------------------------------------------------------------------------------------

X = torch.tensor([1e3, 4e3, 2e4, 7e4, 3e5], dtype=torch.float64)


@given(exponent=st.floats(0.05, 1.0), scale=st.floats(0.1, 100.0))
def test_the_straight_line_finds_its_law_again_and_is_numpy_s(exponent, scale):
    law = scaling.fit_power_law(X, scale * X**-exponent)
    assert (law.exponent.item(), law.scale.item()) == pytest.approx((exponent, scale), rel=1e-6)
    loss = scale * X**-exponent * torch.tensor([1.1, 0.95, 1.0, 1.05, 0.9], dtype=torch.float64)
    slope, start = np.polyfit(np.log(X.numpy()), np.log(loss.numpy()), 1)
    law = scaling.fit_power_law(X, loss)
    assert (-law.exponent.item(), law.scale.log().item()) == pytest.approx((slope, start))


@given(exponent=st.floats(0.1, 1.0), scale=st.floats(10.0, 100.0), floor=st.floats(0.2, 2.0))
def test_the_fit_with_a_floor_finds_its_law_again(exponent, scale, floor):
    law = scaling.fit_with_floor(X, floor + scale * X**-exponent)
    found = [t.item() for t in (law.floor, law.scale, law.exponent)]
    assert found == pytest.approx([floor, scale, exponent], rel=2e-3, abs=2e-3)


def squares(law, x, loss):
    return (law(x) / loss - 1).square().sum().item()


def test_no_law_near_the_fitted_one_has_smaller_errors():
    noise = torch.tensor([1.02, 0.99, 1.0, 0.97, 1.03], dtype=torch.float64)
    loss = (0.8 + 50 / X**0.5) * noise
    law = scaling.fit_with_floor(X, loss)
    least = squares(law, X, loss)
    for a in (0.97, 1.0, 1.03):
        for b in (0.97, 1.0, 1.03):
            for c in (0.99, 1.0, 1.01):
                other = scaling.PowerLaw(floor=law.floor * a, scale=law.scale * b, exponent=law.exponent * c)
                assert squares(other, X, loss) >= least


@pytest.mark.parametrize(
    ("loss", "floor_is_0", "scale_is_0"),
    [
        ([9.0, 3.0, 1.0, 0.3, 0.01], True, False),  # bends down: a floor below 0 would fit better
        ([1.0, 1.1, 1.2, 1.3, 1.4], False, True),  # rises: only a negative scale would
    ],
)
def test_neither_floor_nor_scale_is_negative(loss, floor_is_0, scale_is_0):
    law = scaling.fit_with_floor(X, torch.tensor(loss))
    assert (law.floor == 0).item() == floor_is_0
    assert (law.scale == 0).item() == scale_is_0


def test_errors_are_relative_to_the_loss():
    """A loss a thousand times as large gives the same law, a thousand times as large."""
    loss = torch.tensor([5.0, 3.1, 2.2, 1.7, 1.6])
    small, large = scaling.fit_with_floor(X, loss), scaling.fit_with_floor(X, 1000 * loss)
    assert large.exponent.item() == pytest.approx(small.exponent.item(), rel=1e-5)
    assert large.floor.item() == pytest.approx(1000 * small.floor.item(), rel=1e-4)


def test_for_its_exponent_floor_and_scale_are_numpy_s_fit_of_relative_errors():
    loss = torch.tensor([9.0, 3.1, 2.2, 1.3, 1.25], dtype=torch.float64)
    law = scaling.fit_with_floor(X, loss)
    terms = np.stack([np.ones(5), X.numpy() ** -law.exponent.item()], axis=1)
    floor, scale = np.linalg.lstsq(terms / loss.numpy()[:, None], np.ones(5), rcond=None)[0]
    assert [law.floor.item(), law.scale.item()] == pytest.approx([floor, scale])


@pytest.mark.parametrize("fit", [scaling.fit_power_law, scaling.fit_with_floor])
def test_rows_are_fitted_each_by_itself(fit):
    loss = torch.tensor([[5.0, 3.1, 2.2, 1.7, 1.6], [4.0, 3.0, 2.5, 2.0, 1.2]])
    together = fit(X.expand(2, -1), loss)
    for i in range(2):
        alone = fit(X, loss[i])
        for name in ("floor", "scale", "exponent"):
            assert getattr(together, name)[i].item() == pytest.approx(getattr(alone, name).item(), rel=1e-9)


def test_more_rounds_find_the_exponent_more_closely():
    loss = 0.8 + 50 / X**0.43
    apart = [abs(scaling.fit_with_floor(X, loss, rounds=n).exponent.item() - 0.43) for n in (1, 2, 5)]
    assert apart[0] > apart[1] > apart[2] and apart[2] < 1e-4


def test_the_joint_fit_finds_its_law_again_and_forgets_no_term():
    n, d = (t.flatten() for t in torch.meshgrid(X, 100 * X, indexing="ij"))
    law = scaling.JointLaw(floor=0.5, of_parameters=30.0, alpha=0.4, of_data=200.0, beta=0.6)
    found = scaling.fit_joint(n, d, law(n, d))
    for name in ("floor", "of_parameters", "alpha", "of_data", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=0.01)
    noise = 1 + 0.02 * torch.randn(len(n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = law(n, d) * noise
    fitted = (scaling.fit_joint(n, d, loss)(n, d) / loss - 1).square().sum()
    assert fitted <= (law(n, d) / loss - 1).square().sum()


def test_the_joint_fit_has_no_negative_term():
    n, d = (t.flatten() for t in torch.meshgrid(X, 100 * X, indexing="ij"))
    found = scaling.fit_joint(n, d, 30 * n**-0.4 + 20 * d**-0.6 - 0.001)
    assert min(found.floor, found.of_parameters, found.of_data) >= 0


# --- bands -----------------------------------------------------------------------------------------


def drawn(**settings):
    usual = {"n_draws": 500, "generator": torch.Generator().manual_seed(0)}
    return scaling.resampled(5, 3, **usual | settings)


def test_a_draw_has_as_many_points_as_were_measured_and_the_seeds_of_the_sizes_drawn():
    rows, columns = drawn()
    assert rows.shape == columns.shape == (500, 15)
    assert rows.unique().tolist() == [0, 1, 2, 3, 4] and columns.unique().tolist() == [0, 1, 2]
    assert (rows.view(500, 5, 3) == rows.view(500, 5, 3)[..., :1]).all()
    counts = torch.stack([(rows == size).sum(-1) // 3 for size in range(5)], dim=-1)
    assert counts.max() > 1 and (counts.sum(-1) == 5).all(), "sizes are drawn with replacement"
    assert ((counts > 0).sum(-1) >= 3).all()
    # seeds, too: of three draws out of three, 6 of 27 are all different
    different = columns.view(-1, 3).sort(-1).values.diff(dim=-1).gt(0).all(-1).double().mean()
    assert different.item() == pytest.approx(6 / 27, abs=0.03)


def test_seeds_alone_leave_every_size_in():
    rows, _ = drawn(sizes_too=False)
    assert torch.equal(rows, torch.arange(5).repeat_interleave(3).expand(500, -1))


def test_how_many_sizes_must_differ_is_heeded():
    for different in (2, 4):
        rows, _ = drawn(different=different)
        least = min(len(row.unique()) for row in rows)
        assert least == different


def noisy(seed, n_seeds=3, size=0.03):
    random = torch.Generator().manual_seed(seed)
    return (0.8 + 50 / X[:, None] ** 0.5) * (
        1 + size * torch.randn(len(X), n_seeds, generator=random, dtype=torch.float64)
    )


def test_the_seed_chooses_the_draws_and_their_number_counts():
    def floors(**settings):
        return scaling.bootstrap(X, noisy(0), fit=scaling.fit_with_floor, **{"n_draws": 20} | settings).floor

    assert torch.equal(floors(), floors()) and floors().shape == (20,)
    assert not torch.equal(floors(), floors(seed=1))
    assert floors(n_draws=7).shape == (7,)
    assert floors(sizes_too=False).std() != floors().std()


def test_every_start_is_drawn():
    """Three starts that lie on laws of their own: single draws of three of a kind meet all three."""
    loss = torch.stack([k / X[:3] ** 0.5 for k in (10.0, 20.0, 40.0)], dim=-1)
    laws = scaling.bootstrap(X[:3], loss, fit=scaling.fit_power_law, n_draws=2000, sizes_too=False)
    assert laws.scale.min() < 20 < laws.scale.max()


def test_without_noise_every_law_is_the_law_and_the_band_has_no_width():
    loss = (0.8 + 50 / X**0.5)[:, None].expand(-1, 3)
    laws = scaling.bootstrap(X, loss, fit=scaling.fit_with_floor, n_draws=50)
    low, high = scaling.band(laws, X)
    torch.testing.assert_close(low, high, rtol=1e-3, atol=0)


def test_a_band_widens_where_it_is_extrapolated_and_with_the_share():
    laws = scaling.bootstrap(X, noisy(0), fit=scaling.fit_with_floor, n_draws=300)
    low, high = scaling.band(laws, torch.tensor([1e4, 1e7], dtype=torch.float64))
    widths = (high - low) / high
    assert widths[1] > 2 * widths[0]
    narrow = scaling.band(laws, torch.tensor([1e7], dtype=torch.float64), share=0.5)
    assert (narrow[1] - narrow[0]) < (high - low)[1]


def test_a_band_holds_the_true_law_in_most_worlds_inside_of_what_was_measured():
    """Of 40 worlds with noise of their own the 90 % band holds the truth, where it was measured, in most."""
    inside = torch.tensor([1e4, 1e5], dtype=torch.float64)
    truth, held = 0.8 + 50 / inside**0.5, 0
    for seed in range(40):
        laws = scaling.bootstrap(X, noisy(seed, size=0.05), fit=scaling.fit_with_floor, n_draws=100)
        low, high = scaling.band(laws, inside)
        held += ((low <= truth) & (truth <= high)).double().mean().item()
    assert 0.6 < held / 40 < 1


# --- errors ----------------------------------------------------------------------------------------

SIZES = {"n_layers": 1, "d_model": 2, "d_ff": 3, "vocab_size": 5}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: scaling.count_parameters(**SIZES | {"d_ff": 0}), "d_ff must be 1 or more, got 0"),
        (lambda: scaling.count_parameters(**SIZES, d_kv=0), "d_kv must be 1 or more, got 0"),
        (lambda: scaling.count_parameters(**SIZES, n_positions=-1), "n_positions must be .* got -1"),
        (lambda: scaling.training_flops(-1, 5), "must be 0 or more, got -1 and 5"),
        (lambda: scaling.kaplan(0.0), "must be above 0, got 0.0 and inf"),
        (lambda: scaling.HOFFMANN.optimum(0.0), "flops must be above 0, got 0.0"),
        (lambda: scaling.fit_power_law(X, X[:4]), r"got shapes \(5,\) and \(4,\)"),
        (lambda: scaling.fit_power_law(X, -X), "every loss must be above 0 .* got -300000.0"),
        (lambda: scaling.fit_power_law(X * 0, X), "every x must be above 0 .* got 0.0"),
        (lambda: scaling.fit_power_law(X[:1].expand(5), X), "2 different x .* got 1"),
        (lambda: scaling.fit_with_floor(X[:2], X[:2]), "3 different x .* got 2"),
        (lambda: scaling.fit_with_floor(X, X, rounds=0), "rounds must be 1 or more, got 0"),
        (lambda: scaling.fit_joint(X, X[:1].expand(5), X), "3 different x .* got 1"),
        (lambda: drawn(n_draws=0), "n_seeds and n_draws must be 1 or more, got 3 and 0"),
        (lambda: drawn(different=6), "6 different sizes, got a table of 5"),
        (
            lambda: scaling.bootstrap(X, noisy(0)[:4], fit=scaling.fit_power_law),
            "a row of losses, got 5 and 4",
        ),
        (lambda: scaling.band(scaling.fit_power_law(X, X), X, share=1.0), "between 0 and 1, got 1.0"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
