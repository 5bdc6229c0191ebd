"""Sound to fetch: spoken digits, a sentence of a speech, and the filters with which Whisper listens."""

import io
import wave
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from .archives import members
from .registry import fetch

FSDD_RATE = 8_000  # samples a second
_FSDD = "free-spoken-digit-dataset-1.0.9/recordings/{digit}_{speaker}_{index}.wav"
SPEAKERS = ("george", "jackson", "nicolas", "theo", "yweweler")


@dataclass(frozen=True, eq=False)
class Recording:
    """A digit spoken once: which, by whom, which of fifty takes, and its samples between -1 and 1."""

    digit: int
    speaker: str
    index: int
    samples: Float32[Tensor, "N"]


def fsdd(
    part: Literal["train", "test"] = "train", *, folder: str | PathLike[str] | None = None
) -> list[Recording]:
    """The Free Spoken Digit Dataset, version 1.0.9, at ``FSDD_RATE``: 2,500 recordings, most below a second.

    Split as its authors say: of each digit and each speaker, recordings 0 to 4 are the test, 250 in all, and
    5 to 49 are to be trained on, 2,250. The archive is GitHub's of the tag; should GitHub pack it anew one
    day, its bytes will differ, and ``fetch`` says so.

    Args:
        part: "train" or "test".
        folder: where to keep the archive, as in ``registry.fetch``.

    Raises:
        ValueError: another part.
        FetchError: the archive cannot be had.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    wanted = {
        _FSDD.format(digit=digit, speaker=speaker, index=index): (digit, speaker, index)
        for digit in range(10)
        for speaker in SPEAKERS
        for index in (range(5) if part == "test" else range(5, 50))
    }
    contents = dict(members(fetch("fsdd", folder=folder), wanted))
    return [Recording(*key, _samples(contents[name])) for name, key in wanted.items()]


def _samples(content: bytes) -> Float32[Tensor, "N"]:
    with wave.open(io.BytesIO(content)) as recording:
        form = recording.getnchannels(), 8 * recording.getsampwidth(), recording.getframerate()
        if form != (1, 16, FSDD_RATE):
            raise ValueError(f"channels, bits and rate must be (1, 16, {FSDD_RATE}), got {form}")
        numbers = np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2")
    return torch.from_numpy(numbers.astype(np.float32) / 2**15)


def jfk(*, folder: str | PathLike[str] | None = None) -> tuple[Float32[Tensor, "2 N"], int]:
    """Eleven seconds of a speech, "ask not what your country can do for you", and its rate.

    Whisper expects one channel, the mean of these two, at 16,000 samples a second.

    Returns:
        Samples between -1 and 1, left and right, and 44,100 samples a second.

    Raises:
        ModuleNotFoundError: no library that reads FLAC is installed.
        FetchError: the file cannot be had.
    """
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading FLAC needs the package soundfile: pip install soundfile", name="soundfile"
        ) from error
    samples, rate = soundfile.read(fetch("jfk_flac", folder=folder), dtype="float32")
    return torch.from_numpy(samples).T, rate


def mel_filters(
    n_mels: int = 80, *, folder: str | PathLike[str] | None = None
) -> Float32[Tensor, "bands 201"]:
    """Whisper's filters: each row says how much of 201 frequencies, 0 to 8,000 Hz, goes into one mel band.

    Args:
        n_mels: bands, 80 or 128.

    Raises:
        ValueError: another number of bands.
        FetchError: the file cannot be had.
    """
    if n_mels not in (80, 128):
        raise ValueError(f"n_mels must be 80 or 128, got {n_mels}")
    with np.load(fetch("whisper_mel_filters", folder=folder), allow_pickle=False) as banks:
        return torch.from_numpy(banks[f"mel_{n_mels}"])
