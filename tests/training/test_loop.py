"""The loop: its steps are those of the definition, and it goes on as if it had never stopped."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.training import loop
from transformer_lab.training.loop import Trainer, TrainingConfig, learning_rate, translation_loss

PATIENT = TrainingConfig(steps=9, warmup=3, lr=1e-2)


def build(seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 12, "d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 8, "dropout": 0.3}
    return Transformer(TransformerConfig(**sizes | {"max_len": 12} | settings))


def batches(generator):
    """Three batches an epoch: rows to be turned around, some of them short."""
    for _ in range(3):
        source = torch.randint(3, 12, (4, 5), generator=generator)
        source[0, 3:] = 0
        target = torch.cat([torch.ones(4, 1), source.flip(1), torch.full((4, 1), 2)], dim=1).long()
        target[0] = torch.tensor([1, *source[0, :3].flip(0), 2, 0, 0])
        yield source, target


def trainer(config=PATIENT, model=None, **settings):
    return Trainer(model or build(), batches, config, **settings)


def weights(of):
    return torch.cat([p.detach().flatten() for p in of.model.parameters()])


# --- one step ------------------------------------------------------------------------------------


def test_the_loss_counts_every_real_token_once():
    model = build().eval()
    source, target = next(batches(torch.Generator().manual_seed(0)))
    one_by_one = 0.0
    for s, t in zip(source, target, strict=True):
        s, t = s[s != 0][None], t[t != 0]
        log_p = model(s, t[None, :-1])[0].log_softmax(dim=-1)
        one_by_one -= log_p[range(len(t) - 1), t[1:]].sum()
    torch.testing.assert_close(translation_loss(model, (source, target)), one_by_one)


def test_smoothing_spreads_its_share_over_the_vocabulary():
    """Against the formula: (1 - s) of the loss, and s of the mean loss of all tokens."""
    model = build().eval()
    source, target = (t[1:] for t in next(batches(torch.Generator().manual_seed(0))))  # without padding
    log_p = model(source, target[:, :-1]).log_softmax(dim=-1)
    right = -log_p.gather(-1, target[:, 1:, None]).sum()
    wanted = 0.8 * right - 0.2 * log_p.mean(dim=-1).sum()
    torch.testing.assert_close(translation_loss(model, (source, target), 0.2), wanted)


def test_a_step_is_that_of_adam_with_a_shortened_gradient():
    config = dataclasses.replace(PATIENT, smoothing=0.0, clip=0.1)
    model, twin = build(dropout=0.0).double(), build(dropout=0.0).double()  # round-off would be enlarged
    ours = trainer(config, model)
    adam = torch.optim.Adam(twin.parameters(), betas=(0.9, 0.98), eps=1e-9)
    stream = [b for epoch in range(2) for b in batches(torch.Generator().manual_seed(epoch))]
    ours.train(5)
    for step, (source, target) in enumerate(stream[:5], start=1):
        adam.param_groups[0]["lr"] = learning_rate(step, config)
        scores = twin(source, target[:, :-1])
        loss = F.cross_entropy(scores.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0)
        adam.zero_grad()
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
        assert norm > 0.1
        for p in twin.parameters():
            p.grad *= 0.1 / norm
        adam.step()
        assert ours.losses[step - 1] == pytest.approx(loss.item(), rel=1e-5)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_one_large_batch():
    def all_at_once(generator):
        parts = list(batches(generator))
        yield tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    one = Trainer(build(dropout=0.0).double(), all_at_once, PATIENT)
    three = trainer(dataclasses.replace(PATIENT, accumulate=3), build(dropout=0.0).double())
    assert one.train(3) == pytest.approx(three.train(3), rel=1e-5)
    torch.testing.assert_close(weights(one), weights(three), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [("inverse_root", [0.5, 1, (2 / 3) ** 0.5, 0.5**0.5]), ("cosine", [0.5, 1, 0.5 + 0.5**1.5, 0.5])],
)
def test_learning_rates(schedule, wanted):
    config = TrainingConfig(steps=6, warmup=2, lr=1.0, schedule=schedule)
    assert [learning_rate(step, config) for step in (1, 2, 3, 4)] == pytest.approx(wanted)
    if schedule == "cosine":
        assert learning_rate(6, config) == pytest.approx(0)


def test_the_rate_of_the_paper():
    """Equation (3): d_model^-0.5 min(step^-0.5, step warmup^-1.5)."""
    config = TrainingConfig(steps=100_000, lr=(512 * 4000) ** -0.5)
    for step in (1, 100, 4000, 4001, 100_000):
        assert learning_rate(step, config) == pytest.approx(512**-0.5 * min(step**-0.5, step * 4000**-1.5))


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "cosine"},
        {"warmup": 2},
        {"lr": 2e-2},
        {"betas": (0.5, 0.98)},
        {"eps": 1e-3},
        {"smoothing": 0.3},
        {"clip": 1e-3},
        {"accumulate": 2},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_setting_matters(change):
    plain, other = trainer(), trainer(dataclasses.replace(PATIENT, **change))
    plain.train(6), other.train(6)
    assert not torch.equal(weights(plain), weights(other))


def test_the_order_of_the_batches_follows_from_the_seed():
    """Without dropout nothing else does."""
    plain, other = (
        trainer(dataclasses.replace(PATIENT, seed=seed), build(dropout=0.0)).train(1) for seed in (0, 1)
    )
    assert plain != other


def test_dropout_is_on_and_follows_from_the_seed_and_the_process_keeps_its_own_chance():
    wanted = trainer().train(3)
    model = build().eval()
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert trainer(model=model).train(3) == wanted
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trainer(model=build(dropout=0.0)).train(3) != wanted


# --- stopping and going on -----------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[1], [4], [3, 2], [1, 1, 1, 1, 1]])
def test_it_goes_on_as_if_it_had_not_stopped(stops, tmp_path):
    """Losses and weights to the last bit: the order of the batches, dropout, Adam and the rate included."""
    whole = trainer()
    whole.train()
    for steps in stops:
        trainer(checkpoint_path=tmp_path / "c").train(steps)
        torch.manual_seed(99)  # whatever else the process does
    rest = trainer(model=build(seed=5), checkpoint_path=tmp_path / "c")
    assert rest.train() == whole.losses and len(rest.losses) == 9
    assert torch.equal(weights(rest), weights(whole))
    assert rest.train() == whole.losses, "at its end it has nothing left to do"


def test_it_goes_on_behind_the_batches_that_were_read(tmp_path):
    """Of which a step reads two here, so that an epoch of three ends within a step."""
    config = dataclasses.replace(PATIENT, accumulate=2)
    whole = trainer(config).train()
    trainer(config, checkpoint_path=tmp_path / "c").train(4)
    assert trainer(config, checkpoint_path=tmp_path / "c").train() == whole


def test_it_goes_on_from_a_checkpoint_in_the_middle(tmp_path, monkeypatch):
    """As after a kill: what train() would have stored at its end is not there."""
    save = loop.checkpoint.save
    monkeypatch.setattr(
        loop.checkpoint, "save", lambda ours, path: save(ours, tmp_path / f"{len(ours.losses)}")
    )
    whole = trainer(checkpoint_path=tmp_path / "c", every=4).train()
    assert trainer(checkpoint_path=tmp_path / "4").train() == whole


def test_checkpoints_are_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(loop.checkpoint, "save", lambda trainer, path: written.append(len(trainer.losses)))
    trainer(checkpoint_path=tmp_path / "c", every=4).train()
    assert written == [4, 8, 9]
    trainer().train(1)
    assert written == [4, 8, 9], "nowhere to write to"


def test_an_interrupt_ends_after_the_step_and_loses_nothing(tmp_path):
    whole, stopped = trainer(), trainer(checkpoint_path=tmp_path / "c")
    whole.train()
    step = stopped._step

    def interrupted(batches):
        n_tokens = step(batches)
        if len(stopped.losses) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return n_tokens

    stopped._step = interrupted
    before = signal.getsignal(signal.SIGINT)
    assert len(stopped.train()) == 4
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer(checkpoint_path=tmp_path / "c").train() == whole.losses


def test_a_second_interrupt_is_obeyed_at_once():
    stopped = trainer()

    def impatient(batches):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one came too late")

    stopped._step = impatient
    with pytest.raises(KeyboardInterrupt):
        stopped.train()


def test_it_trains_in_a_thread_too():
    ours = trainer()
    thread = threading.Thread(target=ours.train)
    thread.start()
    thread.join()
    assert len(ours.losses) == 9


def test_the_bar_tells_loss_and_speed_and_leaves_nothing_behind(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    ours = trainer()
    step = ours._step
    ours._step = lambda batches: (time.sleep(0.15), step(batches))[1]  # the bar is redrawn ten times a second
    ours.train(3)
    said = capsys.readouterr()
    assert said.out == "" and "loss" in said.err and "tokens/s" in said.err and "step/s" in said.err
    assert said.err.rsplit("\r", 2)[1].strip() == "", "the last thing written must be blanks"


def test_the_bar_heeds_tqdm_s_own_switch(monkeypatch):
    """Which tqdm does not heed in notebooks, where a bar would stay in the page."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert trainer()._bar(3).disable
    monkeypatch.delenv("TQDM_DISABLE")
    ours = trainer()
    ours.train(2)
    with ours._bar(3) as bar:
        assert not bar.disable and bar.n == 2, "what was done before counts"


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """And on the same disk: a move between disks would be a copy, which can be seen half done."""
    path, calls = tmp_path / "new folder" / "c", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(loop.checkpoint.os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))

    def noted(unfinished, place):
        calls.append("replace")
        assert Path(unfinished).parent == Path(place).parent
        replace(unfinished, place)

    monkeypatch.setattr(loop.checkpoint.os, "replace", noted)
    trainer(checkpoint_path=path).train(1)
    assert calls == ["fsync", "replace"] and path.exists()


KILLED = """
import sys
from tests.training.test_loop import trainer
trainer(checkpoint_path=sys.argv[1], every=1).train()
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_a_checkpoint_that_loads(tmp_path):
    """Twenty times, at another moment each; and from the last one on the run ends as it would have."""
    whole = trainer()
    whole.train()
    path, root = tmp_path / "c", Path(__file__).resolve().parents[2]
    seconds = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    for moment in seconds:
        run = subprocess.Popen([sys.executable, "-c", KILLED, path], cwd=root, stderr=subprocess.DEVNULL)
        while not path.exists() and run.poll() is None:
            pass
        try:
            run.wait(moment / 10)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
        found = trainer(checkpoint_path=path)
        assert found.losses == whole.losses[: len(found.losses)]
        if len(found.losses) == 9:
            path.unlink()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"accumulate": 0}, "accumulate must be 1 or more, got 0"),
        ({"warmup": 0}, "warmup must be 1 or more, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"clip": -1.0}, "clip must be positive, got -1.0"),
        ({"lr": math.nan}, "lr must be positive, got nan"),
        ({"smoothing": 1.0}, "smoothing must be from 0 to below 1, got 1.0"),
        ({"schedule": "linear"}, "schedule must be 'inverse_root' or 'cosine', got 'linear'"),
    ],
)
def test_bad_settings_say_what_was_wrong(settings, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(PATIENT, **settings)


@pytest.mark.bad_input
def test_an_empty_corpus_is_told():
    with pytest.raises(ValueError, match="nothing to train on: an epoch has no batch"):
        Trainer(build(), lambda generator: [], PATIENT).train()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"model": build(norm="pre")}, "belongs to another model: its norm is 'post', yours 'pre'"),
        ({"model": build(vocab_size=13)}, "belongs to another model: its vocab_size is 12, yours 13"),
        ({"config": dataclasses.replace(PATIENT, lr=1.0)}, "to another training: its lr is 0.01, yours 1.0"),
    ],
    ids=str,
)
def test_a_checkpoint_of_something_else_is_refused(other, match, tmp_path):
    trainer(checkpoint_path=tmp_path / "c").train(1)
    kept = (tmp_path / "c").read_bytes()
    with pytest.raises(ValueError, match=match):
        trainer(**other, checkpoint_path=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == kept


@pytest.mark.bad_input
@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(100)])
def test_a_file_that_is_no_checkpoint_is_told_and_kept(content, tmp_path):
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint that can be read"):
        trainer(checkpoint_path=path)
    assert path.read_bytes() == content


@pytest.mark.bad_input
def test_tensors_of_something_else_are_told(tmp_path):
    save_file({"model.embed.weight": torch.zeros(2)}, tmp_path / "c")
    with pytest.raises(ValueError, match="no checkpoint of a Trainer: it does not tell the settings"):
        trainer(checkpoint_path=tmp_path / "c")


@pytest.mark.bad_input
def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    ours = trainer(checkpoint_path=tmp_path / "c")
    ours.train(2)
    monkeypatch.setattr(loop.checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        ours.train(2)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert len(trainer(checkpoint_path=tmp_path / "c").losses) == 2
