"""German to English: our encoder-decoder against ``torch.nn.Transformer``, trained by the same loop.

    python -m benchmarks.translation ours        # half an hour on a CPU core; stopped, it goes on
    python -m benchmarks.translation pytorch
    python -m benchmarks.translation --table     # what both came to
    python -m benchmarks.translation --publish   # our model into the package, for the chapter

Equal data, word pieces, first weights, order of batches, settings and steps. Each run is stored in results/,
with its curve on sentences for validation, and test BLEU, greedy and by beam.
"""

import argparse
import json
import platform
import re
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from benchmarks.peers import TorchTransformer
from transformer_lab import device
from transformer_lab.data.pairs import epochs, tatoeba_credits
from transformer_lab.encoder_decoder import Transformer, TransformerConfig
from transformer_lab.training import results
from transformer_lab.training.encoder_decoder import LONGEST, bleu, german_english, german_english_settings
from transformer_lab.training.loop import Trainer
from transformer_lab.translator import Translator

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS, WORK = HERE / "results", ROOT / "_build" / "translation"
CONTESTANTS = {"ours": Transformer, "pytorch": TorchTransformer}
WORDS = ("Zeit", "Katze", "beißt", "Lösungen", "Gleichung")  # the chapter asks how often these were read
MAX_TOKENS, LOOKS, N_LOOKED = 4096, 12, 250  # places in a batch; points of the curve, of so many sentences


def contestant(name: str, config: TransformerConfig, seed: int) -> nn.Module:
    """Untrained, with the first weights of this seed: the same for all."""
    torch.manual_seed(seed)
    ours = Transformer(config)
    if name == "ours":
        return ours
    model = CONTESTANTS[name](config)
    model.load(ours)
    return model


def run(name: str, seed: int, steps: int) -> dict:
    """Train one contestant, or go on with it, and give its record."""
    parts, tokenizer = german_english()
    config, training = german_english_settings(steps, tokenizer.get_vocab_size())
    model = contestant(name, config, seed).to(device())
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


def table() -> str:
    """All stored runs, a row each."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("translation-*-*.json"))]
    lines = [
        "German to English, Tatoeba: test BLEU on 2,000 pairs that were held out, one reference each.",
        "",
        "| model | start | steps | numbers | BLEU, greedy | BLEU, beam of 4 | minutes | device | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        scores = f"{r['bleu']['greedy']:.2f} | {r['bleu']['beam 4']:.2f}"
        device = f"{r['device']}, {r['threads']} threads"
        lines.append(
            f"| {r['model']} | {r['seed']} | {r['steps']} | {r['parameters']:,} | {scores} | {r['minutes']} |"
            f" {device} | {r['date']} |"
        )
    signatures = {r["signature"] for r in records}
    return "\n".join([*lines, "", *(f"Signature: `{signature}`" for signature in sorted(signatures))]) + "\n"


def publish(seed: int = 0, n_examples: int = 12) -> None:
    """Our trained model, and what the chapter tells about both, into the package."""
    stem = WORK / f"ours-{seed}"
    parts, tokenizer = german_english()
    config, _ = german_english_settings(1, tokenizer.get_vocab_size())
    trained = safetensors.torch.load_file(stem.with_suffix(".safetensors"))
    model = Transformer(config)
    model.load_state_dict({k.removeprefix("model."): t for k, t in trained.items() if k.startswith("model.")})
    weights = ROOT / "transformer_lab" / "weights" / "german_english.safetensors"
    Translator(model, tokenizer).save(weights)
    loaded = Translator.load(weights)
    credits = tatoeba_credits("tatoeba_deu_eng")
    distinct: dict[str, str] = {}  # sentences of some length, each reference once
    for source, reference in parts.test:
        if len(source.split()) >= 8:
            distinct.setdefault(reference, source)
    chosen = [(source, reference) for reference, source in distinct.items()][:n_examples]
    sources = [source for source, _ in chosen]
    examples = [
        {"source": s, "reference": r, "greedy": g, "beam": b, "credit": credits[s, r]}
        for (s, r), g, b in zip(
            chosen, loaded.translate(sources), loaded.translate(sources, beam_size=4), strict=True
        )
    ]
    runs = {
        path.stem.split("-")[-2]: json.loads(path.read_text())
        for path in sorted(RESULTS.glob(f"translation-*-{seed}.json"), key=lambda path: path.stem)
    }
    rounded = {name: bleu(loaded, parts.test, beam_size=k)[0] for name, k in (("greedy", 1), ("beam 4", 4))}
    sentences = [set(re.findall(r"\w+", source)) for source, _ in parts.train]
    seen = {word: sum(word in sentence for sentence in sentences) for word in WORDS}
    told = {"german_english": runs, "rounded": rounded, "seen": seen, "examples": examples}
    results.write("generation", told)


def main() -> None:
    parser = argparse.ArgumentParser(description="German to English, ours against PyTorch's.")
    parser.add_argument("model", nargs="?", choices=CONTESTANTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--table", action="store_true", help="print and keep the table of all stored runs")
    parser.add_argument("--publish", action="store_true", help="put our model into the package")
    arguments = parser.parse_args()
    if arguments.model:
        record = run(arguments.model, arguments.seed, arguments.steps)
        path = RESULTS / f"translation-{record['device']}-{record['model']}-{record['seed']}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.table or arguments.model:
        (RESULTS / "translation.md").write_text(made := table())
        print(made)
    if arguments.publish:
        publish(arguments.seed)


if __name__ == "__main__":
    main()
