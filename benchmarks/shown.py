"""What a self-conditioned network makes of the x0_hat that it is shown: nats a word of dev text, by noise level.

    python benchmarks/shown.py E2E --model e2e-teacher                   # a model and its own
    python benchmarks/shown.py E2E --model e2e-small --teacher e2e-teacher   # a student

`nothing`: at a sampler's first step. `its own`: of a first pass at the same z_t, as in training. `earlier`: of a pass one step
before, at t + STEP, of other noise, as a sampler shows it. `earlier, own`: of a first pass at the same z_t that was shown the
earlier one. With a teacher, `from teacher` is KL(teacher | model), a word: the model shown the earlier one, the teacher after
two passes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import same_noise
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import Denoiser
from diffusion_lm.store import write_whole
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus

TIMES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
WAYS = ("nothing", "its own", "earlier", "earlier, own", "from teacher")


def answers(network: Denoiser, teacher: Denoiser, ids: Tensor, mask: Tensor, t: float, step: float) -> list[Tensor]:
    """Logits of p(w | z_t) in the first four `WAYS`, [B, L, V] each, and of the teacher after two passes."""
    now, before = (torch.full((len(ids),), time) for time in (t, min(1.0, t + step)))
    x0 = network.embed(ids)
    z = network.schedule.noised(x0, now)
    nothing = network(z, now, mask)
    shown = network(network.schedule.noised(x0, before), before, mask).x0 if t < 1 else None
    earlier, first = network(z, now, mask, shown), teacher(z, now, mask, shown)
    said = nothing, network(z, now, mask, nothing.x0), earlier, network(z, now, mask, earlier.x0)
    return [each.logits.float() for each in (*said, teacher(z, now, mask, first.x0))]


@torch.no_grad()
def measured(lm: DiffusionLM, teacher: DiffusionLM, dev: EncodedCorpus, n: int, t: float, step: float) -> list[float]:
    """Nats a word of n dev sentences in the first four `WAYS`, and what the third is away from the teacher."""
    sums, words = torch.zeros(len(WAYS)), 0
    with same_noise(lm.device), lm.autocast():
        for rows in token_batches(dev.lengths[:n], 8192, None):
            ids, mask = gather(dev, rows, lm.tokenizer.pad_id)
            *said, wanted = (each[mask] for each in answers(lm.denoiser, teacher.denoiser, ids, mask, t, step))
            nats = [F.cross_entropy(each, ids[mask], reduction="sum") for each in said]
            away = F.kl_div(said[2].log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True)
            sums += torch.stack([*nats, away]).cpu()
            words += int(mask.sum())
    return [round(value, 4) for value in (sums / words).tolist()]


def main() -> None:
    """Print the table; write it to OUT if that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the corpus")
    parser.add_argument("--model", default="e2e-small", help="a self-conditioned model that predicts words")
    parser.add_argument("--teacher", help="whose student it is; default: its own")
    parser.add_argument("--step", type=float, default=0.1, help="how much earlier the earlier step is")
    parser.add_argument("--n", type=int, default=512, help="dev sentences")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    flags = parser.parse_args()
    lm = DiffusionLM.from_pretrained(flags.model, "cpu")
    teacher = DiffusionLM.from_pretrained(flags.teacher or flags.model, "cpu")
    with tempfile.TemporaryDirectory() as cache:
        corpus = open_corpus(CorpusConfig(flags.source))
        dev = encode_corpus(corpus, "dev", lm.tokenizer, lm.config.max_length, Path(cache))
        found = {t: measured(lm, teacher, dev, flags.n, t, flags.step) for t in TIMES}
    table = Table("t", *WAYS)
    for t, row in found.items():
        table.add_row(f"{t:g}", *(f"{value:.3f}" for value in row))
    Console().print(table)
    if flags.out is not None:
        record = {**{key: str(value) for key, value in vars(flags).items()}, "ways": WAYS, "by_time": found}
        write_whole(flags.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
