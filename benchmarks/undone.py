"""Why guidance succeeds or fails: what the gradient moves, what the next denoising step takes back, what the classifier sees.

    python benchmarks/undone.py --model e2e-paper --task tree --targets FILE --out runs/undone

For each sampler and each tenth of t, with the paper's guidance: the classifier's -log p (a term) before a step's updates,
after them, and when the next step begins; and the share of words whose nearest vector under x0_hat is another one after the
updates. Then what the outside judge says of the finished texts. OUT/TASK.json holds it all.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guidance import UNTIL, WAYS
from torch import Tensor

from diffusion_lm.control.guidance import Guidance, InnerLoop, Slope, Steered
from diffusion_lm.control.latent import CENTRES, LEVELS
from diffusion_lm.diffusion.clamp import HardClamp, nearest
from diffusion_lm.diffusion.process import Gaussian
from diffusion_lm.diffusion.samplers import SAMPLERS, Guide
from diffusion_lm.evaluation.systems import spread
from diffusion_lm.evaluation.tasks import find_tasks, together
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.store import write_whole

logger = logging.getLogger("undone")


@dataclass
class Watched(Guidance):
    """The guidance `inner`, with what it and the sampler do to the energy written down."""

    inner: InnerLoop
    seen: list[dict[str, float]] = field(default_factory=list)

    def update(self, slope: Slope, directions: Any, step: Gaussian) -> Tensor:  # noqa: D102
        raise NotImplementedError

    def guide(self, steered: Steered) -> Guide:  # noqa: D102
        follow = self.inner.guide(steered)

        def energy(z: Tensor, s: Tensor) -> float:
            found = steered.energy(z, s)
            assert found is not None
            return float(found[0].mean())

        def words(z: Tensor, s: Tensor) -> Tensor:
            return nearest(steered.denoise(z, s).x0.float(), steered.vectors)

        def move(z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
            t, before, read = float(s[0]), energy(z, s), words(z, s)
            if self.seen:
                self.seen[-1]["next"] = before
            z = follow(z, step, s)
            changed = float((words(z, s) != read)[steered.mask].float().mean())
            self.seen.append({"t": t, "before": before, "after": energy(z, s), "changed": changed})
            return z

        return move


def bands(seen: list[dict[str, float]]) -> dict[str, list[float]]:
    """Means over tenths of t."""
    found: dict[str, list[float]] = {name: [] for name in ("before", "after", "next", "changed")}
    for band in range(LEVELS):
        own = [each for each in seen if int(each["t"] * LEVELS) == band and "next" in each]
        for name, values in found.items():
            values.append(sum(each[name] for each in own) / max(1, len(own)))
    return found


def main() -> None:
    """Guide by both samplers and write down what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="e2e-paper")
    parser.add_argument("--task", required=True)
    parser.add_argument("--targets")
    parser.add_argument("--limit", type=int, default=12, help="so many of the targets")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--fluency", type=float, default=0.0005)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    lm, (task,) = DiffusionLM.from_pretrained(flags.model), find_tasks([flags.task])
    targets = task.targets(lm, flags.targets)
    controls = [together(task.asks(targets[name], WAYS)) for name in spread(list(targets), flags.limit)]
    record: dict[str, Any] = {"task": flags.task, "t": CENTRES}
    for sampler in ("renoise", "ddpm"):
        watched = Watched(InnerLoop(3, flags.rate, flags.fluency, UNTIL))
        how: dict[str, Any] = {"steps": flags.steps, "sampler": SAMPLERS[sampler](), "clamp": HardClamp()}
        made = lm.generate(len(controls), controls, guidance=watched, batch_size=len(controls), **how)
        success = [float(control.success([text])[0]) for control, text in zip(controls, made.texts, strict=True)]
        record[sampler] = bands(watched.seen) | {"success": success, "final_energy": watched.seen[-1]["after"]}
        logger.info("%s, %s: success %.3f", flags.task, sampler, sum(success) / len(success))
    flags.out.mkdir(parents=True, exist_ok=True)
    write_whole(flags.out / f"{flags.task}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
