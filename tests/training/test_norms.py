"""The stacks and runs behind the chapter on norms, and what is stored of them."""

import math

import pytest
import torch

from transformer_lab.norms import Residual
from transformer_lab.training import norms as runs
from transformer_lab.training import results


@pytest.mark.parametrize(("wiring", "placement"), [("pre-norm", "pre"), ("post-norm", "post")])
def test_a_stack_is_what_residual_makes(wiring, placement):
    torch.manual_seed(0)
    stack = runs.Stack(wiring, depth=2, d_model=8, n_heads=2)
    x = torch.randn(2, 5, 8)
    around, y = Residual(8, placement=placement), x
    for attention, feed_forward in zip(stack.attentions, stack.feed_forwards, strict=True):
        y = around(y, lambda h, attention=attention: attention(h, h))
        y = around(y, feed_forward)
    torch.testing.assert_close(stack.after_each_layer(x)[-1], y)
    torch.testing.assert_close(stack(x), around.norm(y) if placement == "pre" else y)


def test_stacks_without_a_skip_connection_replace_what_came_in():
    torch.manual_seed(0)
    stack = runs.Stack("attention alone", depth=1, d_model=8, n_heads=2)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(stack(x), stack.attentions[0](x, x))
    assert not stack.feed_forwards


def test_wirings_seeds_and_gains_make_a_difference():
    firsts = [runs.depth_run(wiring, 2)["gradient"][0] for wiring in runs.WIRINGS]
    assert len({f"{first:.6e}" for first in firsts}) == len(runs.WIRINGS)
    a, b, c = (runs.depth_run("pre-norm", 2, **kw) for kw in ({}, {"seed": 1}, {"gain": 3**0.5}))
    assert a == runs.depth_run("pre-norm", 2) and a != b and a != c


def test_two_diseases():
    dead, faint = (runs.depth_run(wiring, 12) for wiring in ("norm, no residual", "neither"))
    assert dead["diversity"][-1] < 1e-9 and faint["diversity"][-1] < 1e-9
    assert dead["gradient"][0] > 1 and faint["gradient"][0] < 1e-12
    assert dead["query gradient"][5] < 1e-12


def test_steps_count_from_the_first_ten_and_what_is_no_number_is_stored_as_none():
    assert runs.summary([1.0] * 20)["steps"] == 10
    lost = runs.summary([3.0] * 10 + [math.nan] * 10)
    assert lost == {"steps": None, "final": None, "curve": [3.0, None]}
    assert runs.summary([3.0] * 20, threshold=4.0)["steps"] == 10


def test_a_short_run_is_repeatable_and_its_settings_matter():
    base = runs.survival_run("pre", 1e-3, steps=3)
    assert base == runs.survival_run("pre", 1e-3, steps=3)
    for other in (
        runs.survival_run("post", 1e-3, steps=3),
        runs.survival_run("pre", 2e-3, steps=3),
        runs.survival_run("pre", 1e-3, steps=3, warmup=2),
        runs.survival_run("pre", 1e-3, steps=3, seed=1),
    ):
        assert other[0] != base[0] and other[1] != base[1]


def test_what_is_stored_is_whole():
    stored = results.read("norms")
    depth, survival = stored["depth"], stored["survival"]
    assert depth["wirings"] == list(runs.WIRINGS) and depth["depths"] == list(runs.DEPTHS)
    for name in ("gradient", "query gradient", "diversity"):
        for wiring in runs.WIRINGS:
            lengths = {n_layers: len(values) for n_layers, values in depth[name][wiring].items()}
            assert lengths == {str(n): n for n in runs.DEPTHS}
    assert (survival["threshold"], survival["steps"]) == (runs.THRESHOLD, runs.STEPS)
    for placement in runs.PLACEMENTS:
        assert list(survival["runs"][placement]) == list(runs.RATES)
        for run in survival["runs"][placement].values():
            assert {len(values) for values in run.values()} == {len(survival["seeds"])}
    induction = stored["induction"]
    assert induction["steps"] == runs.REPEAT_STEPS
    assert {len(shares) for of in induction["copied"].values() for shares in of.values()} == {3}
    assert {len(values) for values in induction["heads"].values()} == {10}


def test_rows_begin_again_and_every_period_occurs():
    rows, period = runs.repeats(200, torch.Generator().manual_seed(0))
    assert rows.shape == (200, runs.LENGTH) and set(period.tolist()) == set(runs.PERIODS)
    for row, p in zip(rows, period.tolist(), strict=True):
        assert torch.equal(row[p:], row[:-p])
    assert rows.unique().tolist() == list(range(runs.SYMBOLS))


class AlwaysZero(torch.nn.Linear):
    """Predicts the symbol 0, whatever it reads."""

    def __init__(self):
        super().__init__(1, 1)

    def forward(self, rows):
        return torch.nn.functional.one_hot(torch.zeros_like(rows), runs.SYMBOLS).double()


def test_only_what_is_repeated_counts_and_not_its_first_symbol():
    rows, period = runs.repeats(50, torch.Generator().manual_seed(1))
    counted = [row[p + 1 :] for row, p in zip(rows.tolist(), period.tolist(), strict=True)]
    wanted = sum(row.count(0) for row in counted) / sum(map(len, counted))
    assert runs.copied(AlwaysZero(), n=50) == pytest.approx(wanted) and wanted > 0


def test_weights_are_those_of_each_layer():
    model = runs.attention_only(2, "pre")
    rows, _ = runs.repeats(3, torch.Generator().manual_seed(0))
    first, second = runs.weights_of(model, rows)
    layer, x = model.layers[0], model.embedded(rows)
    mask = torch.ones(runs.LENGTH, runs.LENGTH, dtype=torch.bool).tril()[None, None]
    h = layer.around_attention.norm(x)
    torch.testing.assert_close(first, layer.attention.weights(h, h, mask))
    assert first.shape == second.shape == (3, 2, runs.LENGTH, runs.LENGTH)
    assert not torch.allclose(first, second)
    assert not any(layer.attention._forward_pre_hooks for layer in model.layers)


@pytest.mark.parametrize(("place", "back"), [("previous", 1), ("same", 11), ("after", 10)])
def test_scores_of_heads_that_look_at_a_known_place(place, back):
    model = runs.attention_only(2, "none")
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.q_proj.weight.zero_()  # all alike: 1 / (t + 1) for the query at t
            layer.attention.q_proj.bias.zero_()
        uniform = sum(1 / (t + 1) for t in range(11, runs.LENGTH)) / (runs.LENGTH - 11)
        for of_layers in runs.head_scores(model).values():
            assert torch.tensor(of_layers).allclose(torch.full((2, 2), uniform))
        model.embed.weight.zero_()
        model.learned.table.weight.copy_(torch.eye(runs.LENGTH, 64))
        first = model.layers[0].attention  # its first head now asks so many places back
        first.q_proj.weight[:32, back : back + 32] = 100 * torch.eye(32)
        first.k_proj.weight[:32] = 100 * torch.eye(32, 64)
        first.k_proj.bias.zero_()
    scores = runs.head_scores(model)
    for name, of_layers in scores.items():
        assert of_layers[0][0] == pytest.approx(float(name == place), abs=0.01)


def test_without_a_head_what_it_found_is_not_written_and_comes_back_afterwards():
    model = runs.attention_only(2, "none")
    rows, _ = runs.repeats(2, torch.Generator().manual_seed(0))
    whole, without = model(rows), []
    for layer in range(2):
        for head in range(2):
            with runs.without_head(model, layer, head):
                without.append(model(rows))
            assert torch.equal(model(rows), whole)
    assert all(not torch.allclose(a, b) for i, a in enumerate([whole, *without]) for b in without[i:])
    layer = model.layers[0].attention
    x = torch.randn(1, 5, 64)
    with runs.without_head(model, 0, 0), runs.without_head(model, 0, 1):
        torch.testing.assert_close(layer(x, x), layer.out_proj.bias.expand(1, 5, 64))
    with pytest.raises(KeyError), runs.without_head(model, 0, 0):
        raise KeyError
    assert torch.equal(model(rows), whole)


def test_training_on_repeats_is_repeatable_and_its_seed_matters():
    def trained(seed):
        model = runs.attention_only(1, "pre")
        runs.train_on_repeats(model, steps=5, batch_size=4, seed=seed)
        return model.embed.weight.detach()

    assert torch.equal(trained(0), trained(0)) and not torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0), runs.attention_only(1, "pre").embed.weight)


@pytest.mark.parametrize("wiring", runs.WIRINGS)
def test_stored_depths_are_measured_again(wiring):
    """At depth 4, quickly; what has collapsed is compared only as collapsed, for it is rounding."""
    again = [runs.depth_run(wiring, 4, seed=seed) for seed in range(3)]
    for name in ("gradient", "query gradient", "diversity"):
        stored = results.read("norms")["depth"][name][wiring]["4"]
        for layer, wanted in enumerate(stored):
            mean = math.exp(sum(math.log(max(run[name][layer], 1e-300)) for run in again) / 3)
            assert mean < 1e-9 if wanted < 1e-12 else mean == pytest.approx(wanted, rel=0.02)


@pytest.mark.slow
def test_the_depths_are_measured_again():
    stored, again = results.read("norms")["depth"], runs.depth_runs()
    for name in ("gradient", "query gradient", "diversity"):
        for wiring in runs.WIRINGS:
            for n_layers, values in stored[name][wiring].items():
                for wanted, got in zip(values, again[name][wiring][n_layers], strict=True):
                    rounding = name != "gradient" and wanted < 1e-12
                    assert got < 1e-9 if rounding else got == pytest.approx(wanted, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("placement", runs.PLACEMENTS)
def test_the_survivors_are_measured_again(placement):
    """Training is chaotic: who arrives must stay, and when, within a third; others must not arrive."""
    stored = results.read("norms")["survival"]
    for rate, (lr, warmup) in runs.RATES.items():
        run = stored["runs"][placement][rate]
        for i, seed in enumerate(stored["seeds"]):
            losses, _ = runs.survival_run(placement, lr, warmup=warmup, seed=seed)
            again = runs.summary(losses)
            if run["steps"][i] is None:
                assert again["steps"] is None
            else:
                assert again["steps"] == pytest.approx(run["steps"][i], rel=1 / 3)


@pytest.mark.slow
def test_one_layer_and_two_are_trained_on_repeats_again():
    """Training is chaotic: one layer stays below, two come above, and what a head does is seen again."""
    stored = results.read("norms")["induction"]
    again = runs.induction_runs()
    for norm, of_layers in stored["copied"].items():
        for n_layers, shares in of_layers.items():
            assert again["copied"][norm][n_layers] == pytest.approx(shares, abs=0.1)
    for name, values in stored["heads"].items():
        assert again["heads"][name] == pytest.approx(values, abs=0.2)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: runs.Stack("sideways", depth=2), "wiring must be one of pre-norm; .* got 'sideways'"),
        (lambda: runs.Stack("neither", depth=0), "depth must be 1 or more, got 0"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()
