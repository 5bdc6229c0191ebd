"""German to English: our encoder-decoder against ``torch.nn.Transformer``, trained by the same loop.

    python -m benchmarks.translation ours        # hours on a CPU; stopped, it goes on where it was
    python -m benchmarks.translation pytorch
    python -m benchmarks.translation --table     # what both came to
    python -m benchmarks.translation --publish   # our model into the package, for the chapter

Equal data, word pieces, order of batches, settings and steps. Each run is stored in results/, with its curve
on sentences for validation, and test BLEU, greedy and by beam.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.peers import TorchTransformer
from transformer_lab import device
from transformer_lab.encoder_decoder import Transformer
from transformer_lab.training.encoder_decoder import LONGEST, bleu, german_english, german_english_settings
from transformer_lab.training.loop import Trainer
from transformer_lab.training.pairs import epochs
from transformer_lab.translator import Translator

HERE = Path(__file__).parent
RESULTS, WORK = HERE / "results", HERE.parent / "_build" / "translation"
CONTESTANTS = {"ours": Transformer, "pytorch": TorchTransformer}
MAX_TOKENS, LOOKS, N_LOOKED = 4096, 12, 250  # places in a batch; points of the curve, of so many sentences


def run(name: str, seed: int, steps: int) -> dict:
    """Train one contestant, or go on with it, and give its record."""
    parts, tokenizer = german_english()
    config, training = german_english_settings(steps, tokenizer.get_vocab_size())
    torch.manual_seed(seed)
    model = CONTESTANTS[name](config).to(device())
    translator = Translator(model, tokenizer)
    WORK.mkdir(parents=True, exist_ok=True)
    stem = WORK / f"{name}-{seed}"
    trainer = Trainer(
        model,
        epochs(parts.train, tokenizer, max_tokens=MAX_TOKENS, longest=LONGEST),
        replace(training, seed=seed),
        checkpoint_path=stem.with_suffix(".safetensors"),
        every=100,
    )
    curve_file = stem.with_suffix(".json")
    record = json.loads(curve_file.read_text()) if curve_file.exists() else {"curve": [], "seconds": 0.0}
    while len(trainer.losses) < steps:
        begun, before = time.perf_counter(), len(trainer.losses)
        step = steps // LOOKS
        trainer.train(step - before % step)
        record["seconds"] += time.perf_counter() - begun
        if len(trainer.losses) % step:
            raise KeyboardInterrupt  # the loop stopped early: what is done is stored
        loss = sum(trainer.losses[-step:]) / step
        score, _ = bleu(translator, parts.validation[:N_LOOKED])
        record["curve"].append([len(trainer.losses), round(loss, 3), round(score, 2)])
        curve_file.write_text(json.dumps(record))
        print(f"{name}: step {len(trainer.losses)}, loss {loss:.3f}, validation BLEU {score:.1f}", flush=True)
    return {
        "model": name,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bleu": {
            "greedy": bleu(translator, parts.test)[0],
            "beam 4": bleu(translator, parts.test, beam_size=4)[0],
        },
        "signature": bleu(translator, parts.test[:10])[1],
        "minutes": round(record["seconds"] / 60, 1),
        "curve": record["curve"],
        "date": str(date.today()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {name: version(name) for name in ("tokenizers", "sacrebleu")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="German to English, ours against PyTorch's.")
    parser.add_argument("model", nargs="?", choices=CONTESTANTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    arguments = parser.parse_args()
    record = run(arguments.model, arguments.seed, arguments.steps)
    path = RESULTS / f"translation-{record['device']}-{record['model']}-{record['seed']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(record["bleu"])


if __name__ == "__main__":
    main()
