"""Sound from made-up files that are laid out like the real ones; and, where slow, from those."""

import io
import os
import sys
import tarfile
import wave

import numpy as np
import pytest
import soundfile
import torch

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data import audio

TOP = "free-spoken-digit-dataset-1.0.9"


def wav(samples, channels=1, rate=8000):
    with wave.open(stored := io.BytesIO(), "wb") as recording:
        recording.setnchannels(channels)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(np.array(samples, "<i2").tobytes())
    return stored.getvalue()


def packed(recordings):
    """An archive as GitHub makes them: folders, a readme, and recordings by name."""
    with tarfile.open(fileobj=(stored := io.BytesIO()), mode="w:gz", compresslevel=1) as archive:
        for name in (TOP, f"{TOP}/recordings"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in ({"README.md": b"FSDD"} | recordings).items():
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stored.getvalue()


def spoken(digit, speaker, index):
    return [1000 * digit, 100 * audio.SPEAKERS.index(speaker), -index, -(2**15)]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """2,500 recordings of four samples, which say what they are."""
    recordings = {
        f"recordings/{digit}_{speaker}_{index}.wav": wav(spoken(digit, speaker, index))
        for index in range(50)
        for speaker in audio.SPEAKERS
        for digit in range(10)
    }
    make_up(monkeypatch, tmp_path, "fsdd", {f"{TOP}.tar.gz": packed(recordings)})


def test_digits_are_divided_as_their_authors_say_and_each_is_what_its_name_says(digits):
    parts = {part: audio.fsdd(part) for part in ("train", "test")}
    assert {part: len(recordings) for part, recordings in parts.items()} == {"train": 2250, "test": 250}
    for part, indices in (("test", range(5)), ("train", range(5, 50))):
        assert {recording.index for recording in parts[part]} == set(indices)
        for recording in parts[part]:
            assert recording.samples.dtype == torch.float32
            numbers = spoken(recording.digit, recording.speaker, recording.index)
            assert recording.samples.tolist() == [number / 2**15 for number in numbers]
    names = {(r.digit, r.speaker, r.index) for part in parts.values() for r in part}
    assert len(names) == 2500


@pytest.mark.bad_input
@pytest.mark.parametrize("form", [{"channels": 2}, {"rate": 16_000}])
def test_a_recording_of_another_form_is_refused(tmp_path, monkeypatch, form):
    names = [
        f"recordings/{d}_{speaker}_{i}.wav" for d in range(10) for speaker in audio.SPEAKERS for i in range(5)
    ]
    content = packed({name: wav([0, 0], **form) for name in names})
    make_up(monkeypatch, tmp_path, "fsdd", {f"{TOP}.tar.gz": content})
    got = form.get("channels", 1), 16, form.get("rate", 8000)
    with pytest.raises(ValueError, match=rf"bits and rate must be \(1, 16, 8000\), got \{str(got)[:-1]}\)"):
        audio.fsdd("test")


def test_a_speech_in_two_channels_with_its_rate(tmp_path, monkeypatch):
    left_and_right = np.array([[0.5, -0.5], [0.25, 0.0], [-1.0, 0.125]], np.float32)
    soundfile.write(stored := io.BytesIO(), left_and_right, 44_100, format="FLAC")
    make_up(monkeypatch, tmp_path, "jfk_flac", {"jfk.flac": stored.getvalue()})
    samples, rate = audio.jfk()
    assert samples.dtype == torch.float32 and rate == 44_100
    assert samples.tolist() == left_and_right.T.tolist()


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ModuleNotFoundError, match=r"^reading FLAC needs the package soundfile: pip "):
        audio.jfk()


def test_filters_of_either_number_of_bands(tmp_path, monkeypatch):
    banks = {f"mel_{n}": np.full((n, 201), n, np.float32) for n in (80, 128)}
    np.savez(stored := io.BytesIO(), **banks)
    make_up(monkeypatch, tmp_path, "whisper_mel_filters", {"mel_filters.npz": stored.getvalue()})
    for n in (80, 128):
        assert torch.equal(audio.mel_filters(n), torch.full((n, 201), float(n)))
    assert audio.mel_filters().shape == (80, 201)


def test_a_file_of_arrays_may_hold_no_program(tmp_path, monkeypatch):
    np.savez(stored := io.BytesIO(), mel_80=np.array([print], dtype=object))
    make_up(monkeypatch, tmp_path, "whisper_mel_filters", {"mel_filters.npz": stored.getvalue()})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        audio.mel_filters()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: audio.fsdd("validation"), "part must be 'train' or 'test', got 'validation'"),
        (lambda: audio.mel_filters(100), "n_mels must be 80 or 128, got 100"),
    ],
)
def test_bad_input_says_what_was_wrong(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.slow
def test_the_real_sound():
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    recordings = [*audio.fsdd("train"), *audio.fsdd("test")]
    seconds = [len(recording.samples) / audio.FSDD_RATE for recording in recordings]
    assert len(seconds) == 2500 and round(sum(seconds)) == 1025 and max(seconds) < 2.3
    assert all(0.01 < recording.samples.abs().max() <= 1 for recording in recordings)
    samples, rate = audio.jfk()
    assert samples.shape == (2, 485_100) and samples.shape[1] / rate == 11
    assert 0.5 < samples.abs().max() <= 1 and samples.std(1).min() > 0.01
    for n in (80, 128):
        filters = audio.mel_filters(n)
        assert filters.shape == (n, 201) and filters.min() == 0 < filters.amax(1).min()
        assert (filters.argmax(1).diff() >= 0).all()  # from low to high
