"""The whole GPU job, unattended: train from a YAML file, sample, score with a judge, write bf16 weights.

    python scripts/gpu_job.py --config configs/e2e-base.yaml --corpus data/e2e --judge runs/judge --out runs/e2e-base

Needs torch, accelerate, tokenizers, safetensors and pyyaml alone. Started again, it continues where it was: each
part is skipped once it is done. `--pieces-mib 15` splits the weights for a channel that carries small files;
`cat model.safetensors.*` joins them. `--tiny` tries everything on a CPU in a minute, on the toy corpus.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from diffusion_lm.diffusion.clamp import SampledClamp
from diffusion_lm.evaluation.metrics import distinct, self_bleu
from diffusion_lm.flags import read
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.training.lm import TrainConfig
from diffusion_lm.training.trainer import train

logger = logging.getLogger("gpu_job")
SCORED = ((200, 1.0), (50, 0.9), (20, 0.8))
"""Steps and temperature of each scored sampling run."""


def tiny(config: TrainConfig) -> TrainConfig:
    """The same run, small enough for a CPU and a minute."""
    return replace(
        config,
        corpus=CorpusConfig("toy"),
        tokenizer=replace(config.tokenizer, min_count=1),
        model=replace(config.model, size="tiny"),
        run=replace(config.run, steps=60, batch_tokens=1024, validate_every=30, sample_every=60, log_every=10),
    )


def score(lm: DiffusionLM, config: TrainConfig, judge_folder: Path | None, n: int, out: Path) -> None:
    """Sample at each number of steps; texts and measures go to samples.jsonl and scores.jsonl."""
    judge = JudgeLM.from_pretrained(judge_folder).to(lm.device).eval() if judge_folder else None
    training = {document.text for document in open_corpus(config.corpus).documents("train")}
    with (out / "samples.jsonl").open("w") as samples, (out / "scores.jsonl").open("w") as scores:
        for steps, temperature in SCORED:
            made = lm.generate(n, steps=steps, clamp=SampledClamp(temperature=temperature), batch_size=512)
            words = [lm.tokenizer.words(lm.tokenizer.encode(text)) for text in made.texts]
            row = {
                "steps": steps,
                "temperature": temperature,
                "n": n,
                "nats_per_token": fluency(judge, made.texts) if judge else None,
                "distinct_words": distinct(words, 1).count,
                "distinct_bigrams": distinct(words, 2).ratio,
                "self_bleu": self_bleu(words[:1000]),
                "verbatim": sum(text in training for text in made.texts) / n,
                "seconds": made.seconds,
            }
            scores.write(json.dumps(row) + "\n")
            samples.writelines(json.dumps({"steps": steps, "text": text}) + "\n" for text in made.texts)
            logger.info("%s", row)


def write_weights(lm: DiffusionLM, out: Path, pieces_mib: int | None) -> None:
    """bf16 weights in `out/bf16`, whole or in pieces."""
    folder = out / "bf16"
    lm.save_pretrained(folder, torch.bfloat16)
    if pieces_mib is None:
        return
    weights = folder / "model.safetensors"
    content, size = weights.read_bytes(), pieces_mib << 20
    for i in range(math.ceil(len(content) / size)):
        Path(f"{weights}.{i:02d}").write_bytes(content[i * size : (i + 1) * size])
    weights.unlink()


def main() -> None:
    """Train, sample, score, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--corpus", default="toy", help="folder of the corpus, or toy")
    parser.add_argument("--judge", type=Path, help="folder of a judge; without one, fluency is not scored")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1000, help="samples at each number of steps")
    parser.add_argument("--pieces-mib", type=int, help="split the weights into pieces of so many MiB")
    parser.add_argument("--tiny", action="store_true", help="try the whole job on a CPU with the toy corpus")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    started = time.perf_counter()
    config, _ = read(TrainConfig, [f"--config={arguments.config}"])
    config = replace(config, corpus=CorpusConfig(arguments.corpus), run=replace(config.run, out=str(arguments.out)))
    if arguments.tiny:
        config = tiny(config)
    train(config)
    logger.info("Trained after %.0f s.", time.perf_counter() - started)
    lm = DiffusionLM.from_pretrained(arguments.out)
    score(lm, config, arguments.judge, 16 if arguments.tiny else arguments.n, arguments.out)
    write_weights(lm, arguments.out, arguments.pieces_mib)
    logger.info("Done after %.0f s.", time.perf_counter() - started)


if __name__ == "__main__":
    main()
