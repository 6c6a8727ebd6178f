"""A corpus with its labels, and the token ids of a language model beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from diffusion_lm.annotate.corpus_labels import Annotation, annotate
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.document import Document
from diffusion_lm.text.spacing import bare, split_words
from diffusion_lm.text.tokenizer import WordTokenizer

Progress = Callable[[int, int], None]


def labelled(
    lm: DiffusionLM,
    name: str,
    corpus: CorpusConfig,
    labels: str,
    progress: Progress | None = None,
    split: str = "train",
) -> Iterator[tuple[list[int], Annotation]]:
    """The sentences of a split as a language model reads them, and their labels.

    Args:
        lm: whose token ids are wanted.
        name: of the language model, for errors.
        corpus: where the sentences are.
        labels: the file of labels; it is made if it does not hold those of this corpus.
        progress: called with (sentences labelled, all sentences).
        split: which sentences.

    Raises:
        UserError: if the corpus is unusable, or the model's tokens are no words.
    """
    if not isinstance(lm.tokenizer, WordTokenizer):
        raise UserError(f"{name} writes pieces of words, which have no labels; train one on words.")
    for document, label in labelled_documents(corpus, labels, progress, split):
        yield lm.tokenizer.encode(document.text), label


def labelled_documents(
    corpus: CorpusConfig, labels: str, progress: Progress | None = None, split: str = "train"
) -> Iterator[tuple[Document, Annotation]]:
    """The same with the documents themselves; those without words are left out.

    Raises:
        UserError: if the corpus is unusable.
    """
    documents = [document for document in open_corpus(corpus).documents(split) if split_words(document.text)]
    words = [[bare(word) for word in split_words(document.text)] for document in documents]
    yield from zip(documents, annotate(words, labels, progress=progress), strict=True)
