"""Nats a token of human dev text under the diffusion model (a bound) and under the judge (exact): Table 7."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from diffusion_lm.evaluation.metrics import Likelihood, likelihood
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import encode_corpus


def main() -> None:
    """Measure on the same sentences, in the diffusion model's vocabulary; a folder each, for the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="the corpus")
    parser.add_argument("--model", default="e2e-small")
    parser.add_argument("--label", help="what the report calls the model; default: its name")
    parser.add_argument("--judge", help="folder of the judge; without it, the model alone")
    parser.add_argument("--n", type=int, default=1000, help="dev sentences")
    parser.add_argument("--out", type=Path, required=True, help="beginning of the folders' names")
    flags = parser.parse_args()
    lm = DiffusionLM.from_pretrained(flags.model, "cpu")
    corpus, cache = open_corpus(CorpusConfig(flags.source)), Path(f"{flags.out}-cache")
    dev = encode_corpus(corpus, "dev", lm.tokenizer, lm.config.max_length, cache)
    found = [("diffusion", flags.label or flags.model, likelihood(lm, dev, flags.n))]
    if flags.judge:
        step = max(1, len(dev) // flags.n)
        sentences = dev.ids.split(dev.lengths.tolist())[::step]
        texts = [lm.tokenizer.decode(ids.tolist()) for ids in sentences[: flags.n]]
        exact = fluency(JudgeLM.from_pretrained(flags.judge), texts)
        found.append(("judge", "the judge (autoregressive)", Likelihood(exact, 0.0, len(texts))))
    for name, system, figures in found:
        folder = Path(f"{flags.out}-{name}")
        folder.mkdir(parents=True, exist_ok=True)
        record = {"system": system, **figures._asdict(), "split": "dev"}
        (folder / "likelihood.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
