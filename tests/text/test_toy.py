from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.fields import FIELDS, Document
from diffusion_lm.text.toy import toy_documents

UPOS = {"ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "PRON", "PROPN", "PUNCT", "VERB"}


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def leaves(tree: str) -> list[str]:
    return re.findall(r"([^\s()]+)\)", tree)


def drawn(n: int, seed: int) -> list[Document]:
    return list(islice(toy_documents(seed), n))


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return drawn(1000, seed=0)


def test_tags_and_leaves_match_the_words(documents: list[Document]) -> None:
    for document in documents:
        assert document.tags is not None and document.tree is not None
        assert leaves(document.tree) == words(document.text)
        assert len(document.tags) == len(words(document.text))
        assert set(document.tags) <= UPOS


def test_trees_are_balanced_and_whole(documents: list[Document]) -> None:
    for tree in (document.tree for document in documents):
        assert tree is not None and tree.startswith("(S ") and "<" not in tree
        depths = [tree[: i + 1].count("(") - tree[: i + 1].count(")") for i in range(len(tree))]
        assert depths[-1] == 0 and min(depths[:-1]) > 0


def test_field_values_stand_in_the_text(documents: list[Document]) -> None:
    seen = Counter(name for document in documents for name in document.fields)
    assert set(seen) == set(FIELDS)
    assert min(seen.values()) > 100
    for document in documents:
        assert document.fields["name"] in document.text
        assert all(re.search(rf"\b{value}\b", document.text) for value in document.fields.values())


def test_tags_follow_the_words(documents: list[Document]) -> None:
    tags: dict[str, set[str]] = {}
    for document in documents:
        for word, tag in zip(words(document.text), document.tags or (), strict=True):
            tags.setdefault(word, set()).add(tag)
    assert {word: found for word, found in tags.items() if len(found) > 1} == {}
    assert tags["is"] == {"AUX"} and tags["serves"] == {"VERB"} and tags["Thai"] == {"ADJ"}


def test_sentences_are_short_and_varied(documents: list[Document]) -> None:
    lengths = [len(words(document.text)) for document in documents]
    assert min(lengths) == 5 and max(lengths) <= 20
    assert 60 <= len({word for document in documents for word in words(document.text)}) <= 100
    assert len({document.text for document in documents}) > 900


def test_text_is_spaced_and_punctuated(documents: list[Document]) -> None:
    for document in documents:
        assert document.text.endswith(".") and document.text[0].isupper()
        assert not re.search(r"\s[,.]|\s\s|,\S|,\.| a [aeiou]", document.text)


def test_samples_follow_the_seed() -> None:
    assert drawn(50, seed=3) == drawn(80, seed=3)[:50]
    assert drawn(50, seed=3) != drawn(50, seed=4)


def test_the_toy_corpus_has_three_different_splits() -> None:
    corpus = open_corpus(CorpusConfig())
    splits = {split: list(corpus.documents(split)) for split in corpus.splits}
    assert {split: len(found) for split, found in splits.items()} == {"train": 4000, "dev": 400, "test": 400}
    assert splits["train"][:400] != splits["dev"] != splits["test"]
    assert list(corpus.documents("dev")) == splits["dev"]
    assert corpus.unreadable == {"train": 0, "dev": 0, "test": 0}
    assert len({corpus.fingerprint(split) for split in corpus.splits}) == 3
    assert corpus.fingerprint("dev") == open_corpus(CorpusConfig()).fingerprint("dev")
