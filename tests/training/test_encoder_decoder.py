"""What the chapters on the full model measure: the truth about number words, and faults that are faults."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

from transformer_lab import encoder_decoder
from transformer_lab.training import encoder_decoder as bench
from transformer_lab.training import loop, results
from transformer_lab.translator import pretrained


@pytest.fixture(scope="module")
def translator():
    return pretrained("number_words")


# By hand: German token, English token.
PARTNERS = {
    0: "null zero",
    7: "sieben seven",
    10: "zehn ten",
    12: "zwölf twelve",
    16: "sech sixteen zehn sixteen",
    20: "zwan twenty zig twenty",
    21: "ein one zwan twenty zig twenty",
    100: "ein one hundert hundred",
    342: "drei three hundert hundred zwei two vier forty zig forty",
    1005: "ein one tausend thousand fünf five",
    30_013: "drei thirty ßig thirty tausend thousand drei thirteen zehn thirteen",
    40_600: "vier forty zig forty tausend thousand sechs six hundert hundred",
}


@pytest.mark.parametrize("number", PARTNERS)
def test_partners_are_those_that_a_person_names(translator, number):
    english, german = (translator.tokenizer.encode(text).tokens for text in bench.NUMBERS[number])
    told = [(german[i].strip("▁"), english[j].strip("▁")) for i, j in bench.alignment(number)]
    words = PARTNERS[number].split()
    assert told == list(zip(words[::2], words[1::2], strict=True))


@settings(deadline=None)
@given(st.integers(0, 99_999))
def test_only_und_and_and_have_no_partner(number):
    english, german = (
        pretrained("number_words").tokenizer.encode(text).tokens for text in bench.NUMBERS[number]
    )
    pairs = bench.alignment(number)
    alone = {german[i] for i in range(len(german)) if i not in {g for g, _ in pairs}}
    unread = {english[j] for j in range(len(english)) if j not in {e for _, e in pairs}}
    assert alone <= {"und"} and unread <= {"▁and"}
    assert [g for g, _ in pairs] == sorted({g for g, _ in pairs})


def test_pointing_counts_where_each_head_looks_most(translator, monkeypatch):
    def looks_at_the_first(source, target):
        weights = torch.zeros(1, 4, target.shape[1], source.shape[1])
        weights[..., 0] = 0.6
        weights[:, 3, :, 0], weights[:, 3, :, 1] = 0.0, 1.0
        return [weights, weights]

    monkeypatch.setattr(translator.model, "cross_weights", looks_at_the_first)
    # 21: one of three German tokens is said by "one", the second English token, and two by the first
    assert bench.pointing(translator, [21]) == {
        "heads": [[pytest.approx(2 / 3)] * 3 + [pytest.approx(1 / 3)]] * 2,
        "mean": [pytest.approx(2 / 3)] * 2,
    }
    assert bench.pointing(translator, [21, 7], of={"▁ein"})["mean"] == [0, 0]
    assert bench.pointing(translator, [21, 7], of={"zwan", "zig"})["mean"] == [1, 1]


def test_numbers_become_batches_of_one(translator):
    (source, target), (other, _) = bench.as_batches(translator, [21, 7])
    tokens = [translator.tokenizer.id_to_token(i) for i in target[0].tolist()]
    assert tokens == ["<bos>", "▁ein", "und", "zwan", "zig", "<eos>"]
    assert source.shape == (1, 2) and other.shape == (1, 1)


def test_exact_match_is_to_the_last_letter(translator):
    pairs = [("one", "eins"), ("two", "zwei"), ("three", "dreii")]
    assert bench.exact_match(translator, pairs) == pytest.approx(2 / 3)
    assert bench.exact_match(translator, pairs, beam_size=2, batch_size=1) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="the list is empty"):
        bench.exact_match(translator, [])


def test_bleu_is_sacrebleu_s_of_the_translations(translator):
    pairs = [("one", "eins"), ("twenty two", "zwei und zwanzig"), ("three", "drei")]
    made = translator.translate([source for source, _ in pairs])
    score, signature = bench.bleu(translator, pairs)
    assert score == corpus_bleu(made, [[target for _, target in pairs]]).score
    assert signature.startswith("nrefs:1|case:mixed") and "version:" in signature
    with pytest.raises(ValueError, match="the list is empty"):
        bench.bleu(translator, [])


def test_training_lowers_the_loss_and_starts_are_different():
    runs = []
    for seed in (0, 0, 1):
        translator = bench.number_translator(seed)
        runs.append(bench.number_trainer(translator, steps=12, seed=seed).train())
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][-1] < runs[0][0] - 1


def test_each_fault_is_one_and_ends_with_its_run():
    before = encoder_decoder.causal_mask, encoder_decoder.padding_mask, loop.translation_loss
    first = {name: bench.fault_run(name, steps=25, n_tested=4)["losses"] for name in bench.FAULTS}
    assert before == (encoder_decoder.causal_mask, encoder_decoder.padding_mask, loop.translation_loss)
    assert len({tuple(losses) for losses in first.values()}) == 4
    mask = bench._leaking(3)
    assert mask[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert bench._leaking(1, 4).all()


def test_partners_of_a_row_written_in_another_order():
    source = torch.tensor([[3, 4, 6, 5]])
    written = {task: source.gather(1, partners(source)).tolist() for task, partners in bench.PARTNERS.items()}
    assert written == {"backwards": [[5, 6, 4, 3]], "even ones first": [[4, 6, 3, 5]]}


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("task", bench.PARTNERS)
def test_a_copying_run_tells_what_is_right_and_where_heads_look(task, norm):
    run = bench.copying_run(task, norm, 0, steps=5, length=4)
    assert 0 <= run["right"] <= 1 and len(run["mean"]) == 2
    assert [len(heads) for heads in run["heads"]] == [4, 4]
    assert all(0 <= share <= 1 for heads in run["heads"] for share in heads)


def test_what_is_stored_is_what_the_chapter_tells():
    stored = results.read("encoder_decoder")
    faults, copying = stored["faults"], stored["copying"]
    assert set(faults) == set(bench.FAULTS) and set(copying) == set(bench.PARTNERS)
    healthy = faults["none"]
    assert healthy["alone"] >= 0.99 and healthy["together"] >= 0.99
    for name in ("the mask shows the next token", "the target is not shifted"):
        assert faults[name]["losses"][-1] < 0.05 and faults[name]["alone"] < 0.2
    unhidden = faults["padding is not hidden"]
    assert unhidden["alone"] < 0.9 < 0.99 < unhidden["together"]
    for run in (run for norms in copying.values() for runs in norms.values() for run in runs):
        assert run["right"] > 0.99 and run["mean"][1] > 0.9 and run["mean"][0] < run["mean"][1] + 0.01
    mixed, by_length = stored["batches"]["of any length"], stored["batches"]["by length"]
    assert min(run[0] for run in mixed) > max(run[0] for run in by_length)


@pytest.mark.slow
def test_what_is_stored_can_be_measured_again():
    stored, again = results.read("encoder_decoder"), bench.measure()
    for name, run in again["faults"].items():
        for kind in ("alone", "together"):
            assert run[kind] == pytest.approx(stored["faults"][name][kind], abs=0.1)
    for task, norms in again["copying"].items():
        for norm, runs in norms.items():
            for run, before in zip(runs, stored["copying"][task][norm], strict=True):
                assert run["right"] == pytest.approx(before["right"], abs=0.03)
