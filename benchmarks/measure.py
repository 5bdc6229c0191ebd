"""What the benchmarks share: contestants take turns at the clock, and their memory is counted."""

import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

RESULTS = Path(__file__).parent / "results"
WARM_UP = 3  # rounds that do not count
Run = Callable[[], object]


def milliseconds(run: Run, where: torch.device) -> float:
    torch.get_device_module(where).synchronize()
    start = time.perf_counter()
    run()
    torch.get_device_module(where).synchronize()  # a GPU is given work and goes on alone: wait for it
    return 1000 * (time.perf_counter() - start)


def medians(runs: dict[str, Run], where: torch.device, repeats: int) -> dict[str, float]:
    """Milliseconds by name. All run in turns, so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(WARM_UP + repeats):
        for name, run in runs.items():
            took = milliseconds(run, where)
            if repeat >= WARM_UP:
                times[name].append(took)
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_bytes(run: Run, where: torch.device) -> int:
    """The most memory that ``run`` holds at a time, beyond what was there before."""
    if where.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):  # what is given back counts below 0
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def circumstances(where: torch.device, *packages: str) -> str:
    """One line for the head of a table: when, where, with what."""
    machine = torch.cuda.get_device_name() if where.type == "cuda" else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    return (
        f"{date.today()}, {where.type} ({machine}), {torch.get_num_threads()} threads, {versions},"
        f" Python {platform.python_version()}"
    )
