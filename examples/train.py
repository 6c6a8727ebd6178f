"""A model of your own text in Python: a file with a text a line, here of a few words; a real one takes longer."""

import tempfile
from pathlib import Path

from diffusion_lm import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.training.lm import RunConfig, TokenizerConfig, TrainConfig
from diffusion_lm.training.trainer import train

folder = Path(tempfile.mkdtemp())
places = ("river", "station", "park", "market", "church", "school", "harbour", "bridge")
things, looks = ("bar", "shop", "garden", "house", "hotel", "museum"), ("old", "new", "small", "large", "quiet", "busy")
texts = [f"The {look} {thing} is near the {place}." for place in places for thing in things for look in looks]
(folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
config = TrainConfig(
    corpus=CorpusConfig(source=str(folder / "texts.txt")),
    tokenizer=TokenizerConfig(min_count=1),
    model=ModelConfig(size="tiny", max_length=16),
    run=RunConfig(out=str(folder / "run"), steps=100, batch_tokens=1024, validate_every=100, sample_every=100),
)
train(config)
print(*DiffusionLM.from_pretrained(folder / "run").generate(4, steps=50, seed=0), sep="\n")
