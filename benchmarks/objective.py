"""What each part of the paper's objective is for: one training a point, all of the same size and budget, and what came of it.

    python benchmarks/objective.py --source PATH/TO/e2e --judge runs/judge --out runs/objective

A point is `configs/paper-small.yaml` with one thing changed. OUT/POINT/measures.json holds the dev loss by term, the bound, the
vectors' distances, the share of undecided positions by t, and free text with and without the clamp; what is there is not made
again. `--model FOLDER` measures a trained model instead.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.control.latent import CENTRES
from diffusion_lm.diffusion.clamp import HardClamp, NoClamp, clamped, nearest
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.evaluation.metrics import distinct
from diffusion_lm.flags import read
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.store import write_whole
from diffusion_lm.text.batches import gather
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.spacing import words_of
from diffusion_lm.training.lm import TrainConfig
from diffusion_lm.training.trainer import train
from diffusion_lm.training.validation import validate

logger = logging.getLogger("objective")
POINTS = {
    "paper": [],
    "sigma_0 = 0": ["--model.sigma_0=0"],
    "without rounding": ["--model.leave_out=rounding"],
    "random vectors": ["--model.embeddings=random"],
    "eps": ["--model.prediction=eps"],
    "sigma_0 = 0.3": ["--model.sigma_0=0.3"],
    "sigma_0 = 0.05": ["--model.sigma_0=0.05"],
    "cosine": ["--model.schedule=cosine"],
    "linear": ["--model.schedule=linear"],
    "tan": ["--model.schedule=tan"],
    "without embedding": ["--model.leave_out=embedding"],
    "without prior": ["--model.leave_out=prior"],
}
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "paper-small.yaml"
SURE = 0.9
"""A position is undecided while no word has this probability under p(w | x0_hat)."""
DEV = 256


def undecided(lm: DiffusionLM, x0: Tensor, mask: Tensor) -> Tensor:
    """Share of positions at which no word is sure, []."""
    return (lm.denoiser.rounding_logits(x0).softmax(-1).amax(-1) < SURE)[mask].float().mean()


@torch.no_grad()
def reading(lm: DiffusionLM, dev: EncodedCorpus) -> dict[str, list[float]]:
    """Of dev sentences noised to t: the undecided positions, and those whose nearest vector is another word's."""
    ids, mask = (x.to(lm.device) for x in gather(dev, torch.arange(DEV), lm.tokenizer.pad_id, lm.config.canvas))
    x0, vectors = lm.denoiser.embed(ids), lm.denoiser.embedding.vectors()
    torch.manual_seed(0)
    found: dict[str, list[float]] = {"undecided": [], "wrong": []}
    for centre in CENTRES:
        t = torch.full((len(ids),), centre, device=lm.device)
        z = lm.denoiser.schedule.noised(x0, t)
        guess = lm.denoiser(z, t, mask).x0
        found["undecided"].append(float(undecided(lm, guess, mask)))
        found["wrong"].append(float((nearest(guess, vectors) != ids)[mask].float().mean()))
    return found


@torch.no_grad()
def writing(lm: DiffusionLM, sampler: str, from_time: float | None, n: int, steps: int) -> dict[str, Any]:
    """Free text with the hard clamp from a time on, None for none; how sure x0_hat is while it is written."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.multinomial(lm.lengths, n, replacement=True, generator=generator)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(lm.device)
    vectors, z = lm.denoiser.embedding.vectors(), torch.randn(*mask.shape, lm.config.embedding_dim, generator=generator)
    open_share, last = list[float](), []

    def look(index: int, t: Tensor, z: Tensor, prediction: Prediction) -> None:
        last[:] = [t, z]
        if index % (steps // len(CENTRES)) == steps // len(CENTRES) // 2:
            open_share.append(float(undecided(lm, lm.denoiser(z, t, mask).x0, mask)))

    clamp = NoClamp() if from_time is None else HardClamp(from_time=from_time)
    denoise = clamped(lambda z, t: lm.denoiser(z, t, mask), clamp, vectors)
    end = SAMPLERS[sampler]()(denoise, lm.denoiser.schedule, z.to(lm.device), steps, callback=look, generator=generator)
    t, z = last
    raw = lm.denoiser(z, t, mask).x0
    words = lm.denoiser.rounding_logits(end.x0).argmax(-1)
    # The same noise around the words themselves: does the network still read them?
    moved = z + lm.denoiser.schedule.alpha_bar(t).sqrt().reshape(-1, 1, 1) * (F.embedding(words, vectors) - raw)
    again = lm.denoiser.rounding_logits(lm.denoiser(moved, t, mask).x0).argmax(-1)
    return {
        "undecided": open_share[::-1],
        "undecided_at_the_end": float(undecided(lm, raw, mask)),
        "changed_by_rounding": float((again != words)[mask].float().mean()),
        "texts": [lm.tokenizer.decode(row[own].tolist()) for row, own in zip(words.cpu(), mask.cpu(), strict=True)],
    }


def vectors_of(lm: DiffusionLM) -> dict[str, float]:
    """Root mean square of a coordinate; the median distance to the nearest other vector, and the smallest."""
    vectors = lm.denoiser.embedding.vectors().detach().float().cpu()
    apart = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf).amin(1)
    return {
        "rms": float(vectors.square().mean().sqrt()),
        "nearest_median": float(apart.median()),
        "nearest_least": float(apart.min()),
    }


def measure(lm: DiffusionLM, flags: argparse.Namespace, out: Path) -> None:
    """All of it, in OUT/measures.json; texts are scored where there is a judge."""
    corpus = open_corpus(CorpusConfig(flags.source))
    dev = encode_corpus(corpus, "dev", lm.tokenizer, lm.config.max_length, out / "cache").to(lm.device)
    ways = {"hard clamp": (flags.sampler, 1.0), "no clamp": (flags.sampler, None)}
    if flags.model:
        ways |= {f"clamp from {time:g}": (flags.sampler, time) for time in (0.7, 0.5, 0.3)}
        ways |= {"hard clamp, noised afresh": ("renoise", 1.0)}
    with lm.autocast():
        record: dict[str, Any] = {
            "dev": validate(lm.denoiser, dev, lm.tokenizer.pad_id, lm.config.canvas),
            "vectors": vectors_of(lm),
            "reading": reading(lm, dev),
            "writing": {name: writing(lm, *way, flags.n, flags.sampling_steps) for name, way in ways.items()},
        }
    write_whole(out / "measures.json", json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def score(path: Path, judge: JudgeLM) -> dict[str, Any]:
    """What measures.json says, with the texts' figures in their place."""
    record = json.loads(path.read_text(encoding="utf8"))
    for how in record["writing"].values():
        texts = [text for text in how.pop("texts") if text.strip()]
        words = [words_of(text) for text in texts]
        how |= {
            "n": len(texts),
            "nats": fluency(judge, texts),
            "distinct_words": distinct(words, 1).count,
            "example": texts[0],
        }
    return record


def show(found: dict[str, dict[str, Any]]) -> None:
    """Two tables: of the points, and of the ways to write of the last."""
    columns = (
        "point",
        "x0",
        "rounding",
        "bound",
        "rms",
        "nearest",
        "wrong",
        "undecided",
        "nats",
        "words",
        "changed",
        "unclamped",
    )
    points = Table(*columns, title="dev loss, vectors, reading at t = .45, free text with the hard clamp, without it")
    middle = len(CENTRES) // 2 - 1
    for name, record in found.items():
        dev, vectors, read, wrote = (record[part] for part in ("dev", "vectors", "reading", "writing"))
        hard, off = wrote["hard clamp"], wrote["no clamp"]
        numbers = [dev["x0"], dev["rounding"], dev["bound"], vectors["rms"], vectors["nearest_median"]]
        numbers += [read["wrong"][middle], read["undecided"][middle], hard["nats"], hard["distinct_words"]]
        points.add_row(name, *(f"{x:.4g}" for x in [*numbers, off["changed_by_rounding"], off["nats"]]))
    ways = Table("point", "way", "nats", "words", "undecided at the end", "changed by rounding", "a text")
    for name, record in found.items():
        for way, how in record["writing"].items():
            shares = (f"{100 * how[part]:.1f} %" for part in ("undecided_at_the_end", "changed_by_rounding"))
            ways.add_row(name, way, f"{how['nats']:.3f}", str(how["distinct_words"]), *shares, how["example"][:70])
    for table in (points, ways):
        Console(width=200).print(table)


def main() -> None:
    """Train and measure the points that are not there yet; then score all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="the corpus")
    parser.add_argument("--points", nargs="*", default=list(POINTS), help="which of them; default: all")
    parser.add_argument("--model", help="measure this model, as the point `model`, and train none")
    parser.add_argument("--steps", type=int, default=1200, help="of each training")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--n", type=int, default=300, help="free texts")
    parser.add_argument("--sampling-steps", type=int, default=200)
    parser.add_argument("--sampler", default="ddpm", choices=sorted(SAMPLERS))
    parser.add_argument("--judge", type=Path, help="without one, texts are written and not scored")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    for point in ["model"] if flags.model else flags.points:
        out = flags.out / point.replace(" = ", "-").replace(" ", "-")
        if (out / "measures.json").exists():
            continue
        if not flags.model:
            run = [f"--run.steps={flags.steps}", f"--run.batch_tokens={flags.batch_tokens}", f"--run.out={out}"]
            quiet = ["--run.validate_every=1000000", "--run.sample_every=1000000"]
            config, _ = read(
                TrainConfig, [f"--config={CONFIG}", f"--corpus.source={flags.source}", *run, *quiet, *POINTS[point]]
            )
            train(config)
        out.mkdir(parents=True, exist_ok=True)
        measure(DiffusionLM.from_pretrained(flags.model or out), flags, out)
        logger.info("%s is done", point)
    if flags.judge:
        judge = JudgeLM.from_pretrained(flags.judge).eval()
        found = {path.parent.name: score(path, judge) for path in sorted(flags.out.glob("*/measures.json"))}
        write_whole(flags.out / "scores.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        show(found)


if __name__ == "__main__":
    main()
