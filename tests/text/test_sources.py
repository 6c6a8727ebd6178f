"""What texts are written from: corpora with sources, how they are encoded, and in which batches they stand."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.text.batches import gather_sources
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.fields import Document, parse_fields, parts_of
from diffusion_lm.text.tokenizer import WordTokenizer, build_word_tokenizer

ROWS = [("a b c", "one two ."), ("b", "two three ."), ("c d", "one ."), ("a", "three two one .")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.tsv", "valid.tsv"):
        (tmp_path / name).write_text("".join(f"{source}\t{text}\n" for source, text in ROWS), encoding="utf-8")
    return tmp_path


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return build_word_tokenizer([part for row in ROWS for part in row], 1)


@pytest.fixture
def encoded(folder: Path, tokenizer: WordTokenizer) -> EncodedCorpus:
    return encode_corpus(open_corpus(CorpusConfig(str(folder))), "train", tokenizer, 8, folder / "cache", max_source=4)


def test_a_file_of_two_columns_has_sources(folder: Path) -> None:
    documents = list(open_corpus(CorpusConfig(str(folder))).documents("train"))
    assert [(document.source, document.text) for document in documents] == [
        (a, b.replace(" .", ".").replace(".", " .")) for a, b in ROWS
    ]
    alone = open_corpus(CorpusConfig(str(folder / "train.tsv")))
    assert alone.splits == ("train", "dev", "test")


@pytest.mark.parametrize("line", ["no tab", "\tno source", "no text\t ", "one\ttoo\tmany"])
def test_a_line_without_two_columns_is_named(folder: Path, line: str) -> None:
    (folder / "train.tsv").write_text(f"a\tone\n\n{line}\n")
    with pytest.raises(UserError, match=r"Line 3 of .*train\.tsv has not two columns"):
        list(open_corpus(CorpusConfig(str(folder))).documents("train"))


def source_parts(encoded: EncodedCorpus, document: int) -> list[list[int]]:
    """The token ids of each part of a document's source."""
    assert encoded.sources is not None
    ids, offsets, first = encoded.sources.ids, encoded.sources.offsets, encoded.sources.first.tolist()
    bounds = offsets[first[document] : first[document + 1] + 1].tolist()
    return [ids[a:b].tolist() for a, b in pairwise(bounds)]


def test_sources_are_encoded_beside_their_texts(encoded: EncodedCorpus, tokenizer: WordTokenizer) -> None:
    assert encoded.sources is not None
    assert [source_parts(encoded, i) for i in range(4)] == [[tokenizer.encode(source)] for source, _ in ROWS]
    assert [sum(map(len, source_parts(encoded, i))) for i in range(4)] == [3, 1, 2, 1]
    assert (encoded.meta.sources, encoded.meta.fields) == (4, ())


def test_documents_with_a_longer_source_are_left_out(folder: Path, tokenizer: WordTokenizer) -> None:
    corpus = open_corpus(CorpusConfig(str(folder)))
    encoded = encode_corpus(corpus, "train", tokenizer, 8, folder / "cache", max_source=2)
    assert (len(encoded), encoded.meta.long_source) == (3, 1)
    assert encoded.rows.tolist() == [1, 2, 3]
    assert encode_corpus(corpus, "train", tokenizer, 8, folder / "cache").sources is None


def test_a_corpus_without_sources_cannot_have_them_read(tmp_path: Path, tokenizer: WordTokenizer) -> None:
    (tmp_path / "train.txt").write_text("one two .\n" * 3)
    with pytest.raises(UserError, match="no source to write from"):
        encode_corpus(open_corpus(CorpusConfig(str(tmp_path))), "train", tokenizer, 8, tmp_path / "cache", max_source=4)


def test_sources_of_a_batch_stand_in_the_order_of_its_texts(encoded: EncodedCorpus, tokenizer: WordTokenizer) -> None:
    found = gather_sources(encoded, torch.tensor([2, 0]))
    assert found is not None
    assert found.tolist() == [[*tokenizer.encode("c d"), UNKNOWN], tokenizer.encode("a b c")]


MEANING = {"name": "The Mill", "price": "less than £20", "food": "Thai"}


def test_the_parts_of_a_meaning_are_its_fields() -> None:
    document = Document("", MEANING)
    assert parts_of(document) == ("name = The Mill,", "price = less than £20,", "food = Thai,")
    assert parse_fields(" ".join(parts_of(document)), MEANING) == MEANING


def test_parts_are_shuffled_and_none_is_lost(tmp_path: Path) -> None:
    rows = ",".join(f"{name}[{value}]" for name, value in MEANING.items())
    for name in ("trainset.csv", "devset.csv"):
        (tmp_path / name).write_text(f'mr,ref\n"{rows}",The Mill is Thai.\n', encoding="utf-8")
    corpus = open_corpus(CorpusConfig(str(tmp_path)))
    tokenizer = build_word_tokenizer([*parts_of(Document("", MEANING)), "The Mill is Thai."], 1)
    encoded = encode_corpus(corpus, "train", tokenizer, 10, tmp_path / "cache", max_source=30)
    assert encoded.meta.fields == ("name", "price", "food") and encoded.sources is not None
    parts = [tokenizer.encode(part) for part in parts_of(Document("", MEANING))]
    assert source_parts(encoded, 0) == parts
    torch.manual_seed(0)
    drawn = gather_sources(encoded, torch.zeros(200, dtype=torch.long), shuffled=0.5)
    assert drawn is not None
    orders = {tuple(row) for row in drawn.tolist()}
    assert len(orders) == 6 and len({tuple(sorted(row)) for row in orders}) == 1
    straight = sum(row == [*chain.from_iterable(parts)] for row in drawn.tolist()) / 200
    assert straight == pytest.approx(0.5 + 0.5 / 6, abs=0.1)


def test_words_are_added_to_a_known_vocabulary() -> None:
    known = build_word_tokenizer(["one two two"], 1)
    more = build_word_tokenizer(["two three three one four"], 2, known)
    assert [more.token(i) for i in range(4, more.vocab_size)] == ["two", "one", "three"]
