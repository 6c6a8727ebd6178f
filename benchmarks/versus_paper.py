"""Cost side by side in one run: the paper's shapes, ours, and autoregressive models, for 50 sentences that say one value.

    python benchmarks/versus_paper.py --judge runs/judge --fudge runs/baselines/fudge --out docs/img/versus-paper.json

The paper's system (87 M denoiser and a classifier of BERT's shape on a canvas of 64, 200 denoiser and 570 classifier passes a
batch of 50) has random weights, which do not change what a pass costs; `--passes` of each kind are timed and multiplied. Each
system is a process of its own, so that its peak memory is its own. Baselines without a folder are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import FIELDS, peak_memory, settings, synthetic_corpus, tokenizer
from points import HERE, Point, own_process
from rich.console import Console
from rich.table import Table

from diffusion_lm.baselines import open_baseline
from diffusion_lm.control import Attribute, Control, Length
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel, Said
from diffusion_lm.control.control import Target
from diffusion_lm.control.guidance import Guidance, Steered
from diffusion_lm.control.program import Energy
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.store import write_whole

BATCH, DENOISER, CLASSIFIER = 50, 200, 570
"""The paper's: sentences a batch, and passes of each network for it (appendix C)."""
VALUE = ("food", "Japanese")
Measured = dict[str, float | str]


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def paper(passes: int) -> Measured:
    """The paper's shapes: the time of some passes of each kind, multiplied."""
    config = settings(Point("generate", str(HERE.parent / "configs" / "paper-e2e.yaml")), "unused")
    words = tokenizer()
    lm = DiffusionLM.new(config.model, words, synthetic_corpus(words, config.model.max_length, None).length_histogram())
    space = {name: getattr(config.model, name) for name in ("embedding_dim", "max_length", "schedule")}
    width, layers, heads = config.model.shape
    shape = AttributeConfig(fields=FIELDS, **space, lm="", width=width, layers=layers, heads=heads)
    classifier = AttributeModel(shape).eval().requires_grad_(False)
    z = torch.randn(BATCH, config.model.max_length, config.model.embedding_dim)
    t, mask = torch.full((BATCH,), 0.5), torch.ones(z.shape[:2], dtype=torch.bool)
    energy = Energy(lambda latents: -latents.read(classifier)[0][:, 1])
    steered = Steered(
        lambda z, t: Prediction(z, z), mask, lm.denoiser.embedding.vectors(), [(energy, torch.arange(BATCH))]
    )
    with torch.no_grad(), lm.autocast():
        lm.denoiser(z, t, mask)
        steered.slope(z, t)
        denoiser = seconds_of(lambda: [lm.denoiser(z, t, mask) for _ in range(passes)]) / passes
        follow = seconds_of(lambda: [steered.slope(z, t) for _ in range(passes)]) / passes
    parameters = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (lm.denoiser, classifier)]
    return {
        "sentences": BATCH,
        "seconds": DENOISER * denoiser + CLASSIFIER * follow,
        "passes": f"{DENOISER} + {CLASSIFIER}, {passes} of each timed",
        "parameters": "{:.0f} M + {:.0f} M".format(*parameters),
    }


def ours(model: str, control: Control | None, guidance: Guidance | None = None) -> Measured:
    """A bundled model, with what fits the control."""
    lm = DiffusionLM.from_pretrained(model, "cpu")
    lm.generate(BATCH, control, steps=2, guidance=guidance)
    made = lm.generate(BATCH, control, guidance=guidance)
    millions = sum(p.numel() for p in lm.denoiser.parameters()) / 1e6
    return {
        "sentences": BATCH,
        "seconds": made.seconds,
        "passes": str(made.network_evaluations),
        "parameters": f"{millions:.1f} M",
        "success": float(control.success(made.texts).mean()) if control is not None else "",
    }


def judge(folder: str) -> Measured:
    """The autoregressive judge, sampled with its cache."""
    lm = JudgeLM.from_pretrained(folder).eval()
    lm.sample(BATCH, torch.Generator().manual_seed(0))
    started, ids = time.perf_counter(), lm.sample(BATCH, torch.Generator().manual_seed(1))
    seconds, millions = time.perf_counter() - started, sum(p.numel() for p in lm.parameters()) / 1e6
    passes = f"{max(map(len, ids)) - 1}"
    return {"sentences": BATCH, "seconds": seconds, "passes": passes, "parameters": f"{millions:.1f} M"}


def fudge(folder: str) -> Measured:
    """FUDGE on the same value."""
    writer, asked = open_baseline([folder]), {"attribute": Target("=".join(VALUE))}
    writer.write(asked, 2, 0)
    started, written = time.perf_counter(), writer.write(asked, BATCH, 1)
    seconds = time.perf_counter() - started
    success = float(Attribute(*VALUE).success(written.texts).mean())
    passes = str(written.network_evaluations or "")
    return {"sentences": BATCH, "seconds": seconds, "passes": passes, "parameters": "", "success": success}


def systems(flags: argparse.Namespace) -> dict[str, Callable[[], Measured]]:
    """What is measured, by name; the paper's first."""
    found: dict[str, Callable[[], Measured]] = {
        "paper's shapes, a value": lambda: paper(flags.passes),
        "e2e-paper, a value by the paper's guidance": lambda: ours("e2e-paper", Attribute(*VALUE), Guidance.paper()),
        "e2e-small, a value by gradient": lambda: ours("e2e-small", Attribute(*VALUE)),
        "e2e-small, a value by its words": lambda: ours("e2e-small", Said(*VALUE)),
        "e2e-small, a length": lambda: ours("e2e-small", Length(20)),
        "e2e-small, free text": lambda: ours("e2e-small", None),
    }
    if flags.judge:
        found["autoregressive judge with its cache, free text"] = lambda: judge(flags.judge)
    if flags.fudge:
        found["FUDGE, a value"] = lambda: fudge(flags.fudge)
    return found


def main() -> None:
    """Measure each system in a process of its own; print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=4, help="passes of each of the paper's networks that are timed")
    parser.add_argument("--judge", help="folder of a judge")
    parser.add_argument("--fudge", help="folder of a FUDGE baseline")
    parser.add_argument("--only", help="measure one system and print it as JSON")
    parser.add_argument("--out", type=Path, help="a JSON file")
    flags = parser.parse_args()
    if flags.only:
        before, measured = peak_memory(), systems(flags)[flags.only]()
        sys.stdout.write(json.dumps(measured | {"peak_mib": peak_memory(), "idle_mib": before}) + "\n")
        return
    results: dict[str, Measured] = {name: own_process([*sys.argv, "--only", name]) for name in systems(flags)}
    rates = {name: float(r["sentences"]) / float(r["seconds"]) for name, r in results.items()}
    first = next(iter(rates.values()))
    table = Table("system", "parameters", "passes", "sentences/s", "times the paper's", "success", "peak MiB")
    for name, r in results.items():
        success = f"{100 * float(r['success']):.0f} %" if r.get("success") not in (None, "") else ""
        peak, ratio = f"{float(r['peak_mib']):,.0f}", f"{rates[name] / first:,.0f}"
        table.add_row(name, str(r["parameters"]), str(r["passes"]), f"{rates[name]:.3g}", ratio, success, peak)
    Console(width=160).print(table)
    if flags.out:
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "batch": BATCH}
        write_whole(flags.out, json.dumps({"machine": machine, "systems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
