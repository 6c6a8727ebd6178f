from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import Distinct, distinct, self_bleu, verbatim_share
from diffusion_lm.evaluation.scores import Row, append_jsonl, print_rows

A = ["the", "cat", "sat", "on", "the", "mat"]
SENTENCES = st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=2, max_size=6)


def library_self_bleu(sentences: list[list[str]]) -> float:
    """The definition, by sacrebleu alone."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True, tokenize="none", force=True)
    texts = [" ".join(words) for words in sentences]
    scores = [bleu.sentence_score(t, texts[:i] + texts[i + 1 :]).score for i, t in enumerate(texts)]
    return sum(scores) / len(scores)


def test_distinct_by_hand() -> None:
    assert distinct([A], 1) == Distinct(5, 5 / 6)
    assert distinct([A], 2) == Distinct(5, 1)
    assert distinct([A, A], 2) == Distinct(5, 5 / 10)
    assert distinct([["a"], ["b"]], 2) == Distinct(0, 0.0)
    assert distinct([], 1) == Distinct(0, 0.0)
    with pytest.raises(UserError):
        distinct([A], 0)


def test_n_grams_do_not_cross_sentences() -> None:
    assert distinct([["a", "b"], ["c", "a"], ["b", "c"]], 2).count == 3
    assert distinct([["a", "b", "c", "a", "b", "c"]], 2) == Distinct(3, 3 / 5)


def test_self_bleu_of_equal_and_of_unlike_sentences() -> None:
    assert self_bleu([A] * 5) == pytest.approx(100)
    assert self_bleu([["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "j", "k", "l"]]) == 0


@given(SENTENCES)
def test_self_bleu_is_the_library_s(sentences: list[list[str]]) -> None:
    assert self_bleu(sentences) == pytest.approx(library_self_bleu(sentences), abs=1e-6)


def test_self_bleu_samples_by_its_seed() -> None:
    rng = random.Random(0)
    sentences = [[rng.choice("abcdefgh") for _ in range(rng.randint(3, 9))] for _ in range(60)]
    assert self_bleu(sentences, sample=20, seed=1) == self_bleu(sentences, sample=20, seed=1)
    assert self_bleu(sentences, sample=20, seed=1) != self_bleu(sentences, sample=20, seed=2)
    assert self_bleu(sentences, sample=None) == self_bleu(sentences, sample=60)
    for call in (lambda: self_bleu([A]), lambda: self_bleu(sentences, sample=1)):
        with pytest.raises(UserError, match="at least two"):
            call()


def test_verbatim_share_leaves_white_space_out() -> None:
    training = {"The  cat sat.", "A dog ran."}
    assert verbatim_share(["The cat sat.", " A dog\nran. ", "a dog ran.", "The cat"], training) == 0.5
    with pytest.raises(UserError):
        verbatim_share([], training)


def test_table_shows_what_was_measured() -> None:
    stream = io.StringIO()
    rows = [
        Row(name="human", nats_per_token=1.6, human_nats_per_token=1.6, n=500),
        Row(name="ours", nats_per_token=1.75, human_nats_per_token=1.6, success=0.987, self_bleu=41.23, n=500),
    ]
    print_rows(Console(file=stream, width=200), rows, title="Length")
    text = stream.getvalue()
    for word in ("Length", "human", "+0.150", "98.7%", "41.2", "–"):
        assert word in text
    assert "verbatim" not in text and "seconds" not in text


def test_records_are_appended_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "results.jsonl"
    append_jsonl(path, Row(name="café", success=0.5, seed=1))
    append_jsonl(path, {"name": "two", "note": "a\nb"})
    one, two = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert one["name"] == "café" and one["success"] == 0.5 and one["verbatim"] is None
    assert two == {"name": "two", "note": "a\nb"}
    with pytest.raises(ValueError):
        append_jsonl(path, {"x": float("nan")})
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
