"""The training of the chapter "The full model", from three starts: does it come to 99 of 100, and how soon?

    make bench, or: python -m benchmarks.number_words --save

The same call as in the chapter, with all the threads that PyTorch takes by itself. Seconds count training
alone, not the tests after each quarter. Numbers are counted as right if the German is, letter by letter.
"""

import argparse
import platform
import time
from datetime import date
from pathlib import Path

import torch

from transformer_lab import device
from transformer_lab.training.encoder_decoder import NUMBERS, exact_match, number_trainer, number_translator

RESULTS = Path(__file__).parent / "results"
STEPS, SEEDS = 400, (0, 1, 2)


def row(seed: int, steps: int = STEPS) -> tuple[list[float], float]:
    """The share of 1,000 new numbers that are right after each quarter, and the seconds of training."""
    translator = number_translator(seed)
    translator.model.to(device())
    trainer = number_trainer(translator, steps=steps, seed=seed)
    test = NUMBERS.of(NUMBERS.split().test)
    right, seconds = [], 0.0
    for _ in range(4):
        start = time.perf_counter()
        trainer.train(steps // 4)
        seconds += time.perf_counter() - start
        right.append(exact_match(translator, test))
    return right, seconds


def table(steps: int = STEPS) -> str:
    where = device()
    machine = torch.cuda.get_device_name() if where.type == "cuda" else platform.machine()
    quarters = [steps * i // 4 for i in range(1, 5)]
    lines = [
        f"{date.today()}, {where.type} ({machine}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}",
        f"{steps} steps; the share of 1,000 new numbers below 100,000 that are right to the last letter",
        "",
        "| start | " + " | ".join(f"after {n}" for n in quarters) + " | seconds of training |",
        "|---|" + "---|" * 5,
    ]
    for seed in SEEDS:
        right, seconds = row(seed, steps)
        lines.append(f"| {seed} | " + " | ".join(f"{share:.3f}" for share in right) + f" | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Number words, English to German, from three starts.")
    parser.add_argument("--save", action="store_true", help="keep the table in benchmarks/results/")
    save = parser.parse_args().save
    made = table()
    print(made)
    if save:
        (RESULTS / f"number_words-{device().type}.md").write_text(made)


if __name__ == "__main__":
    main()
