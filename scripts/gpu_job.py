"""The whole GPU job, unattended: train from a YAML file, its controls beside each other, sample, score, write bf16 weights.

    python scripts/gpu_job.py --config configs/e2e-base.yaml --corpus data/e2e --judge runs/judge --out runs/e2e-base

Needs torch, accelerate, tokenizers, safetensors and pyyaml; its controls rich and, of syntax, nltk too. Started again, it
continues where it was: each part is skipped once it is done. `--minutes` trains as many steps as fit, by the pace of the first.
`--pieces-mib 15` splits the weights for a channel that carries small files; `cat model.safetensors.*` joins them. `--tiny`
tries everything on a CPU in a minute, on the toy corpus.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import yaml
from bundle import save_in_bf16

from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.program import AssetConfig
from diffusion_lm.diffusion.clamp import Clamp, HardClamp, SampledClamp
from diffusion_lm.diffusion.samplers import Ancestral, Renoise, Sampler
from diffusion_lm.evaluation.metrics import distinct, self_bleu
from diffusion_lm.flags import read
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.training.lm import RUN_FILE, TrainConfig
from diffusion_lm.training.trainer import METRICS, train

logger = logging.getLogger("gpu_job")
SCORED: dict[bool, list[tuple[int, Sampler, Clamp]]] = {
    True: [
        (14, Renoise(), SampledClamp()),
        (200, Renoise(), SampledClamp()),
        (50, Renoise(), SampledClamp(temperature=0.9)),
    ],
    False: [(steps, sampler, HardClamp()) for steps in (200, 50) for sampler in (Renoise(), Ancestral())],
}
"""How the texts that are scored are drawn, of models that predict words and of others."""
PACE_AFTER, PACE = 150, 150
"""Steps before and of the measuring of the pace."""


def tiny(config: TrainConfig) -> TrainConfig:
    """The same run, small enough for a CPU and a minute."""
    return replace(
        config,
        corpus=CorpusConfig("toy"),
        tokenizer=replace(config.tokenizer, min_count=1),
        model=ModelConfig(size="tiny", given=config.model.given),
        run=replace(
            config.run, init=None, steps=60, batch_tokens=1024, validate_every=30, sample_every=60, log_every=10
        ),
    )


def steps_within(config: TrainConfig, minutes: float) -> int:
    """How many steps fit, by the pace of some that are thrown away; a run that is taken up keeps its own number."""
    out = Path(config.run.out)
    if (out / RUN_FILE).exists():
        steps: int = yaml.safe_load((out / RUN_FILE).read_text())["run"]["steps"]
        return steps
    with tempfile.TemporaryDirectory() as folder:
        # Its cache is the run's own, so that the corpus is read once.
        (out / "cache").mkdir(parents=True, exist_ok=True)
        Path(folder, "cache").symlink_to((out / "cache").resolve())
        measured = PACE_AFTER + PACE
        run = replace(config.run, out=folder, steps=measured + 1, log_every=PACE_AFTER, validate_every=10**9)
        train(replace(config, run=run))
        lines = [json.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]
    at = {line["step"]: line["time"] for line in lines if line["split"] == "train"}
    pace = PACE / (at[measured] - at[PACE_AFTER])
    logger.info("%.1f steps a second", pace)
    return max(1, int(60 * minutes * pace))


def train_controls(out: Path, corpus: str, names: list[str], how: list[str], labels: str) -> None:
    """What its controls learn of the model, each in a process of its own, all at once."""
    running = []
    for name in names:
        folder = out / "model" / "controls" / name
        if folder.exists():
            continue
        words = ["train-control", name, "--model", str(out), "--corpus.source", corpus, *how]
        if name == "syntax":
            words += ["--labels", f"{labels}.jsonl", "--dev_labels", f"{labels}-dev.jsonl"]
        with (out / f"{name}.log").open("w") as log:
            command = [sys.executable, "-m", "diffusion_lm", *words]
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
    for process in running:
        if process.wait():
            logger.error("%s ended with %d", " ".join(map(str, process.args)), process.returncode)  # type: ignore[union-attr]


def count_pairs(out: Path, corpus: CorpusConfig) -> None:
    """Which words stand side by side, if the model can draw sentences as wholes."""
    lm = DiffusionLM.from_pretrained(out)
    if lm.denoiser.predicts_words and not lm.padded and not lm.has(PairTable):
        table = PairTable.make(AssetConfig(str(out), corpus), lm)
        table.save_pretrained(lm.asset_folder(PairTable))
        logger.info("%s", table.summary())


def score(lm: DiffusionLM, config: TrainConfig, judge_folder: Path | None, n: int, out: Path) -> None:
    """Sample in each way; texts and measures go to samples.jsonl and scores.jsonl."""
    judge = JudgeLM.from_pretrained(judge_folder).to(lm.device).eval() if judge_folder else None
    training = {document.text for document in open_corpus(config.corpus).documents("train")}
    with (out / "scored.jsonl").open("w") as samples, (out / "scores.jsonl").open("w") as scores:
        for steps, sampler, clamp in SCORED[lm.denoiser.predicts_words]:
            made = lm.generate(n, steps=steps, sampler=sampler, clamp=clamp, batch_size=512)
            words = [lm.tokenizer.words(lm.tokenizer.encode(text)) for text in made.texts]
            row = {
                "how": str(made.decoding),
                "n": n,
                "nats_per_token": fluency(judge, made.texts) if judge else None,
                "distinct_words": distinct(words, 1).count,
                "distinct_bigrams": distinct(words, 2).ratio,
                "self_bleu": self_bleu(words[:1000]),
                "verbatim": sum(text in training for text in made.texts) / n,
                "seconds": made.seconds,
            }
            scores.write(json.dumps(row) + "\n")
            samples.writelines(json.dumps({"how": row["how"], "text": text}) + "\n" for text in made.texts)
            logger.info("%s", row)


def write_weights(lm: DiffusionLM, out: Path, pieces_mib: int | None) -> None:
    """bf16 weights in `out/bf16`, whole or in pieces."""
    folder = out / "bf16"
    save_in_bf16(lm, folder)
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
    parser.add_argument("--minutes", type=float, help="train for so long; default: the steps of the configuration")
    parser.add_argument(
        "--controls", nargs="*", default=[], help="what train-control trains of it: attribute, syntax, head"
    )
    parser.add_argument("--controls-how", default="", help="flags of train-control, as one text")
    parser.add_argument(
        "--labels", default="runs/labels", help="files of labels of train and dev, less .jsonl and -dev.jsonl"
    )
    parser.add_argument("--pieces-mib", type=int, help="split the weights into pieces of so many MiB")
    parser.add_argument("--tiny", action="store_true", help="try the whole job on a CPU with the toy corpus")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    started = time.perf_counter()
    config, _ = read(TrainConfig, [f"--config={arguments.config}"])
    config = replace(config, corpus=CorpusConfig(arguments.corpus), run=replace(config.run, out=str(arguments.out)))
    if arguments.tiny:
        config = tiny(config)
    if arguments.minutes:
        config = replace(config, run=replace(config.run, steps=steps_within(config, arguments.minutes)))
    train(config)
    logger.info("Trained after %.0f s.", time.perf_counter() - started)
    train_controls(
        arguments.out, config.corpus.source, arguments.controls, arguments.controls_how.split(), arguments.labels
    )
    logger.info("Controls trained after %.0f s.", time.perf_counter() - started)
    count_pairs(arguments.out, config.corpus)
    lm = DiffusionLM.from_pretrained(arguments.out)
    score(lm, config, arguments.judge, 16 if arguments.tiny else arguments.n, arguments.out)
    write_weights(lm, arguments.out, arguments.pieces_mib)
    logger.info("Done after %.0f s.", time.perf_counter() - started)


if __name__ == "__main__":
    main()
