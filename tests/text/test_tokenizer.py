from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.spacing import normal, split_words
from diffusion_lm.text.tokenizer import (
    SPECIALS,
    Tokenizer,
    build_bpe_tokenizer,
    build_word_tokenizer,
)
from diffusion_lm.text.toy import toy_documents

TEXTS = [
    "The Eagle is a family-friendly pub, near 'The Mill' (£20-25).",
    "It's a cheap pub - it doesn't serve fish & chips!",
    "START the END of UNK and PAD",
    "END END (END) ENDEND UNK UNK PAD",
] * 3
WORD = build_word_tokenizer(TEXTS, min_count=1)
BPE = build_bpe_tokenizer(TEXTS, vocab_size=330)
BOTH = pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=["word", "bpe"])

KNOWN = st.sampled_from(split_words("The Eagle is a family friendly pub near Mill it does cheap 20 25 fish chips"))
MARKS = st.sampled_from(["'", "-", ",", ".", "(", ")", "£", "&", "!", "n't", "'s"])


@BOTH
def test_specials_come_first(tokenizer):
    ids = (tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id)
    assert ids == (0, 1, 2, 3)
    assert tuple(map(tokenizer.token, ids)) == SPECIALS
    assert [tokenizer.id(token) for token in SPECIALS] == [0, 1, 2, 3]


@given(st.lists(st.tuples(st.booleans(), KNOWN | MARKS), max_size=12))
def test_text_of_known_words_comes_back(pieces):
    text = ""
    for space, piece in pieces:
        both_words = text[-1:].isalnum() and piece[0].isalnum()
        text += " " * (bool(text) and (space or both_words)) + piece
    # A spacing that the corpus never shows is not in the vocabulary; everything else is exact.
    assume(all(WORD.id(word) is not None for word in split_words(text)))
    assert WORD.decode(WORD.encode(text)) == text


@given(st.text(max_size=30))
def test_bpe_text_comes_back(text):
    assert BPE.decode(BPE.encode(text)) == normal(text)


@BOTH
@given(words=st.lists(st.sampled_from([*SPECIALS, "a", "the", "(", "-", "ENDEND", "xEND"]), min_size=1, max_size=8))
def test_a_text_cannot_spell_a_special_token(tokenizer, words):
    for text in ("".join(words), " ".join(words)):
        ids = tokenizer.encode(text)
        assert not {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id} & set(ids)
        if tokenizer is BPE:
            assert tokenizer.unk_id not in ids
            assert tokenizer.decode(ids) == text


def test_a_special_word_is_unknown():
    assert WORD.encode("the END of PAD START UNK") == [WORD.id("the"), 2, WORD.id("of"), 2, 2, 2]
    assert WORD.unknown_words("the END of") == ["END"]
    assert WORD.unknown_words("The UNK ___") == ["UNK", "_", "_", "_"]


def test_words_are_known_however_they_are_written():
    assert WORD.unknown_words("It’s a\u00a0cheap pub") == []
    assert WORD.encode("It’s a\u00a0cheap pub") == WORD.encode("It's a cheap pub")


@BOTH
def test_a_sentence_has_a_start_and_an_end(tokenizer):
    ids = tokenizer.encode_sentence("The Eagle")
    assert (ids[0], ids[-1]) == (0, 1)
    assert ids[1:-1] == tokenizer.encode("The Eagle") == tokenizer.content(ids)
    junk = [3, 0, *ids[1:-1], 3, 1, 5, 6]
    assert tokenizer.decode(junk) == "The Eagle"
    assert tokenizer.words(junk) == ["The", "Eagle"] or "".join(tokenizer.words(junk)) == "TheEagle"


def test_words_are_what_a_reader_sees():
    ids = WORD.encode("near 'The Mill' (£20-25)")
    assert WORD.words(ids) == ["near", "'", "The", "Mill", "'", "(", "£", "20", "-", "25", ")"]


def test_a_spacing_that_the_corpus_never_shows_falls_back_to_the_usual_one():
    tokenizer = build_word_tokenizer(["a - b"], min_count=1)
    assert tokenizer.id("-") is None and tokenizer.unknown_words("a-b") == ["-"]
    tokenizer = build_word_tokenizer(["a-b"], min_count=1)
    assert tokenizer.unknown_words("a - b") == []
    assert tokenizer.decode(tokenizer.encode("a - b")) == "a-b"


def test_the_vocabulary_is_the_frequent_words_most_frequent_first():
    tokenizer = build_word_tokenizer(["b b b a a c", "a d d"], min_count=2)
    assert [tokenizer.token(i) for i in range(4, tokenizer.vocab_size)] == ["a", "b", "d"]
    assert tokenizer.unknown_words("a c e") == ["c", "e"]
    with pytest.raises(UserError, match="lower the minimum count"):
        build_word_tokenizer(["a b"], min_count=2)


def test_bpe_has_the_size_that_was_asked_for():
    assert BPE.vocab_size == 330
    with pytest.raises(UserError, match="at least 260 tokens, not 259"):
        build_bpe_tokenizer(TEXTS, vocab_size=259)


@BOTH
def test_there_is_no_token_beyond_the_vocabulary(tokenizer):
    with pytest.raises(IndexError):
        tokenizer.token(tokenizer.vocab_size)


@BOTH
def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    loaded = Tokenizer.load(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    text = "The END of It's cheap"
    assert loaded.encode(text) == tokenizer.encode(text)


def test_fingerprints_differ():
    others = [build_word_tokenizer(TEXTS, 4), build_word_tokenizer([*TEXTS, "more"], 1), BPE]
    assert len({tokenizer.fingerprint for tokenizer in (WORD, *others)}) == 4
    assert build_word_tokenizer(TEXTS, 1).fingerprint == WORD.fingerprint


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        Tokenizer.load(tmp_path)


def _damaged(saved):
    vocab = saved["model"]["vocab"]
    yield json.dumps(saved)[:100]
    yield json.dumps(saved | {"model": saved["model"] | {"vocab": vocab | {"START": 1, "END": 0}}})
    yield '{"model":' * 100_000
    yield "[" * 100_000
    yield "\x80\x04}."  # a pickle
    yield json.dumps(saved | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [[t, 0.0] for t in SPECIALS]}})
    yield json.dumps(saved | {"model": saved["model"] | {"vocab": vocab | {"a": len(vocab) + 7}}})
    yield json.dumps(saved | {"model": saved["model"] | {"vocab": vocab | {"a": vocab["The"]}}})


def test_damaged_files_are_refused(tmp_path):
    WORD.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    for text in _damaged(json.loads(file.read_text())):
        file.write_text(text)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)


def test_toy_sentences_come_back():
    texts = [document.text for document in islice(toy_documents(0), 200)]
    tokenizer = build_word_tokenizer(texts, min_count=1)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_e2e_references_come_back(shared_data):
    corpus = open_corpus(CorpusConfig(str(shared_data / "e2e")))
    tokenizer = build_word_tokenizer((document.text for document in corpus.documents("train")), min_count=11)
    assert 800 <= tokenizer.vocab_size <= 840  # the paper: 821
    texts = [document.text for document in corpus.documents("dev")]
    known = [text for text in texts if not tokenizer.unknown_words(text)]
    exact = [text for text in known if tokenizer.decode(tokenizer.encode(text)) == text]
    assert len(known) > 0.9 * len(texts)
    assert len(exact) >= 0.99 * len(known)
