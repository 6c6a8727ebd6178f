"""`diffusion-lm annotate`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.annotate.config import AnnotateConfig
from diffusion_lm.annotate.corpus_labels import annotate
from diffusion_lm.commands.progress import Bar
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.spacing import bare, split_words


def run(config: AnnotateConfig) -> None:
    """Label every sentence of a split once."""
    texts = (document.text for document in open_corpus(config.corpus).documents(config.split))
    words = [[bare(word) for word in split_words(text)] for text in texts]
    with Bar("labelling", "sentences") as bar:
        labels = annotate(
            [sentence for sentence in words if sentence],
            config.out,
            tagger=config.tagger,
            parser=config.parser,
            workers=config.workers,
            progress=bar,
        )
    Console(highlight=False, soft_wrap=True).print(
        f"Tags and trees of {len(labels):,} sentences are in {config.out}."
    )
