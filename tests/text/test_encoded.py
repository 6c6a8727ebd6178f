from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import Corpus, Source, Unreadable
from diffusion_lm.text.encoded import EncodedCorpus, EncodedMeta, encode_corpus, sentences_that_fit
from diffusion_lm.text.fields import Document
from diffusion_lm.text.tokenizer import Tokenizer, build_bpe_tokenizer, build_word_tokenizer

TEXTS = ["the cat sat", "the dog", "a cat sat on the mat by the dog", "zebra", "the end"]


class ListCorpus(Corpus):
    """Texts from a list; None is an unreadable row."""

    def __init__(self, texts: list[str | None], fails_after: int | None = None, **options: Any) -> None:
        super().__init__("list", dict.fromkeys(["train", "dev"], Source(self._rows, lambda: repr(texts))), **options)
        self.texts, self.fails_after, self.streams = texts, fails_after, 0

    def _rows(self) -> Iterator[tuple[int, Document | Unreadable]]:
        self.streams += 1
        for number, text in enumerate(self.texts, start=1):
            if number == self.fails_after:
                raise UserError("The disk is gone.")
            yield number, Unreadable("it is None") if text is None else Document(text)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_word_tokenizer([text for text in TEXTS if text != "zebra"], min_count=1)


def reference(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [[tokenizer.start_id, *tokenizer.encode(text), tokenizer.end_id] for text in texts]


def sentences(encoded: EncodedCorpus) -> list[list[int]]:
    return [part.tolist() for part in encoded.ids.split(encoded.lengths.tolist())]


def test_sentences_are_start_words_end(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    expected = reference(TEXTS, tokenizer)
    assert len(encoded) == len(TEXTS)
    assert sentences(encoded) == expected
    assert encoded.ids.dtype == torch.int32 and encoded.offsets.dtype == torch.int64
    assert encoded.lengths.tolist() == [len(sentence) for sentence in expected]
    assert encoded.rows.tolist() == [0, 1, 2, 3, 4]


def test_files_are_bare_numbers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {file.name for file in folder.iterdir()} == {"ids", "offsets", "rows", "meta.json"}
    assert np.array_equal(np.fromfile(folder / "ids", np.int32), encoded.ids.numpy())
    loaded = EncodedCorpus.load(folder)
    assert loaded.meta == encoded.meta and torch.equal(loaded.ids, encoded.ids)


def test_every_row_is_accounted_for(tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts: list[str | None] = ["the cat zebra", None, "the cat sat on the mat", "\u00ad", "the dog", None, "zebra"]
    with caplog.at_level(logging.INFO, logger="diffusion_lm"):
        encoded = encode_corpus(ListCorpus(texts, long="leave_out"), "dev", tokenizer, 5, tmp_path)
    meta = encoded.meta
    assert (meta.documents, meta.too_long, meta.empty, meta.unreadable) == (4, 1, 0, 2)
    assert (meta.tokens, meta.unknown) == (5 + 3 + 4 + 3, 3)
    assert (meta.split, meta.max_length) == ("dev", 5)
    assert meta.tokenizer == tokenizer.fingerprint
    assert "longer than 5 tokens 0 were split and 1 left out, and so were 0 without any token" in caplog.text
    assert "list (dev): 4 sentences" in caplog.text


def test_rows_align_sentences_with_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = ListCorpus(["the cat", None, "the cat sat on the mat", "the dog", "zebra"], long="leave_out")
    encoded = encode_corpus(corpus, "train", tokenizer, 5, tmp_path)
    documents = list(corpus.documents("train"))
    for i, row in enumerate(encoded.rows.tolist()):
        assert sentences(encoded)[i] == reference([documents[row].text], tokenizer)[0]


def test_length_histogram_counts_start_and_end(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    histogram = encoded.length_histogram()
    assert histogram.shape == (17,) and histogram.dtype == torch.int64
    assert {n: int(count) for n, count in enumerate(histogram) if count} == {3: 1, 4: 2, 5: 1, 11: 1}
    assert histogram @ torch.arange(17) == encoded.meta.tokens


def test_longest_sentence_that_fits_is_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = ListCorpus(["the cat sat"], long="leave_out")
    assert encode_corpus(corpus, "train", tokenizer, 5, tmp_path).meta.too_long == 0
    with pytest.raises(UserError, match="max_length = 4"):
        encode_corpus(corpus, "train", tokenizer, 4, tmp_path)


def test_a_second_call_reads_the_cache(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = ListCorpus([*TEXTS, None])
    first = encode_corpus(corpus, "train", tokenizer, 16, tmp_path)
    second = encode_corpus(corpus, "train", tokenizer, 16, str(tmp_path))
    assert corpus.streams == 1
    assert torch.equal(first.ids, second.ids) and first.meta == second.meta and second.meta.unreadable == 1


def test_the_cache_knows_what_it_depends_on(tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = build_word_tokenizer(TEXTS, 1)
    calls = [
        (ListCorpus([*TEXTS]), "train", tokenizer, 16),
        (ListCorpus([*TEXTS]), "dev", tokenizer, 16),
        (ListCorpus([*TEXTS]), "train", other, 16),
        (ListCorpus([*TEXTS]), "train", tokenizer, 17),
        (ListCorpus([*TEXTS, "the end"]), "train", tokenizer, 16),
        (ListCorpus([*TEXTS], long="leave_out"), "train", tokenizer, 16),
    ]
    for call in calls:
        encode_corpus(*call, tmp_path)
    assert [call[0].streams for call in calls] == [1] * len(calls)
    assert len(list(tmp_path.iterdir())) == len(calls)


DAMAGE = {
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "meta is no json": lambda folder: (folder / "meta.json").write_text("{"),
    "meta is nested": lambda folder: (folder / "meta.json").write_text("[" * 100_000),
    "meta is a list": lambda folder: (folder / "meta.json").write_text("[]"),
    "meta has other keys": lambda folder: (folder / "meta.json").write_text('{"a": 1}'),
    "no ids": lambda folder: (folder / "ids").unlink(),
    "ids cut": lambda folder: (folder / "ids").write_bytes((folder / "ids").read_bytes()[:-6]),
    "ids empty": lambda folder: (folder / "ids").write_bytes(b""),
    "ids of another type": lambda folder: np.zeros(24).tofile(folder / "ids"),
    "offsets of another corpus": lambda folder: np.arange(6).tofile(folder / "offsets"),
    "offsets fall": lambda folder: np.array([0, 16, 9, 20, 21, 24]).tofile(folder / "offsets"),
    "rows short": lambda folder: np.arange(2).tofile(folder / "rows"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_cache_is_built_again(
    damage: object, tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = ListCorpus([*TEXTS])
    expected = encode_corpus(corpus, "train", tokenizer, 16, tmp_path).ids.clone()
    (folder,) = tmp_path.iterdir()
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ValueError):
        EncodedCorpus.load(folder)
    with caplog.at_level(logging.WARNING):
        again = encode_corpus(corpus, "train", tokenizer, 16, tmp_path)
    assert torch.equal(again.ids, expected)
    assert corpus.streams == 2 and "built again" in caplog.text
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failure_leaves_nothing_behind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The disk is gone"):
        encode_corpus(ListCorpus([*TEXTS], fails_after=4), "train", tokenizer, 16, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_encode_at_once_share_the_result(tokenizer: Tokenizer, tmp_path: Path) -> None:
    results: list[EncodedCorpus] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        results.append(encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result.ids, results[0].ids) for result in results)
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_map_is_private(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    encoded.ids.zero_()
    again = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    assert sentences(again)[0] == reference(TEXTS, tokenizer)[0]


@pytest.mark.parametrize("max_length", [-1, 0, 2])
def test_max_length_must_hold_a_word(tokenizer: Tokenizer, tmp_path: Path, max_length: int) -> None:
    with pytest.raises(UserError, match="3 or more"):
        encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, max_length, tmp_path)


def test_a_corpus_moves_to_a_device(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    moved = encoded.to("meta")
    assert moved.ids.device.type == moved.offsets.device.type == moved.rows.device.type == "meta"
    assert moved.meta is encoded.meta and len(moved) == len(encoded)


def test_meta_is_readable(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded = encode_corpus(ListCorpus([*TEXTS]), "train", tokenizer, 16, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("train-")
    found = json.loads((folder / "meta.json").read_text())
    assert EncodedMeta(**found | {"fields": tuple(found["fields"])}) == encoded.meta


# Documents that are too long

STORY = "the cat sat. the dog sat on the mat! the cat sat by the dog."


def test_long_documents_are_split_at_ends_of_sentences(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = build_word_tokenizer([STORY], 1)
    caplog.set_level(logging.INFO, logger="diffusion_lm")
    encoded = encode_corpus(ListCorpus(["the cat.", STORY, "the dog."]), "train", tokenizer, 12, tmp_path)
    assert [tokenizer.decode(sentence) for sentence in sentences(encoded)] == [
        "the cat.", "the cat sat.", "the dog sat on the mat!", "the cat sat by the dog.", "the dog.",
    ]  # fmt: skip
    assert encoded.rows.tolist() == [0, 1, 1, 1, 2]
    assert (encoded.meta.split_up, encoded.meta.too_long) == (1, 0)
    assert "longer than 12 tokens 1 were split and 0 left out" in caplog.text


def test_long_documents_can_be_left_out_and_are_said_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = build_word_tokenizer([STORY], 1)
    for _ in range(2):
        caplog.clear()
        encoded = encode_corpus(ListCorpus(["the cat.", STORY], long="leave_out"), "train", tokenizer, 12, tmp_path)
        assert (len(encoded), encoded.meta.too_long) == (1, 1)
        assert "longer than 12 tokens 0 were split and 1 left out" in caplog.text


def test_documents_with_fields_are_not_split(tmp_path: Path) -> None:
    tokenizer = build_word_tokenizer([STORY], 1)
    rows = [(1, Document(STORY, {"name": "cat"})), (2, Document("the cat.", {"name": "cat"}))]
    corpus = Corpus("fields", dict.fromkeys(["train", "dev"], Source(lambda: rows, str)))
    assert encode_corpus(corpus, "train", tokenizer, 12, tmp_path).rows.tolist() == [1]


@given(
    st.lists(st.sampled_from(["the", "cat", "sat.", "mat!", "dog", "on."]), min_size=1, max_size=60), st.integers(4, 20)
)
def test_parts_fit_and_make_up_the_whole(words: list[str], max_length: int) -> None:
    tokenizer = build_word_tokenizer([STORY], 1)
    parts = list(sentences_that_fit(" ".join(words), tokenizer, max_length))
    assert max(map(len, parts)) + 2 <= max_length
    assert [i for part in parts for i in part] == tokenizer.encode(" ".join(words))


def test_a_word_that_does_not_fit_is_left_as_it_is() -> None:
    tokenizer = build_bpe_tokenizer(TEXTS, 260)
    assert [len(part) for part in sentences_that_fit("dog zebrazebra cat", tokenizer, 6)] == [3, 10, 3]
