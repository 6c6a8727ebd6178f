from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from nltk import Tree

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.common import UserError
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.report import samples
from diffusion_lm.report.data import read
from diffusion_lm.report.samples import MOST_STEPS, MOST_WORDS, spread, traces, trees
from diffusion_lm.text.tokenizer import build_word_tokenizer


def test_samples_hold_the_worst_and_the_best(runs: Any) -> None:
    texts = [
        runs.text("ours", "pos", str(t), f"{t} {s}", index=i, success=s * t / 10)
        for t in range(10)
        for i, s in enumerate((1.0, 0.5, 0.0))
    ]
    made = samples.samples(read([runs.evaluation("a", *texts)])).split("\n\n")
    assert made == ["**ours, pos**", "0", "- ✗ 0 1.0\n- ✗ 0 0.0", "4", "- ✗ 4 0.0\n- ✗ 40 % 4 1.0", "9",
                    "- ✗ 9 0.0\n- ✗ 90 % 9 1.0"]  # fmt: skip


def test_free_text_has_no_verdict(runs: Any) -> None:
    texts = [runs.text("ours", "unconditional", text=f"Pub {i}.", index=i) for i in range(3)]
    assert samples.samples(read([runs.evaluation("a", *texts)])).endswith("- Pub 0.\n- Pub 1.\n- Pub 2.")


def test_spread_keeps_both_ends() -> None:
    assert spread(range(10), 3) == [0, 4, 9] and spread(range(2), 3) == [0, 1] and spread(range(5), 1) == [0]


WANTED = "(S (NP (DT _) (NN _)) (VP (VBZ _)))"


class Flat:
    """Every sentence is a flat S, and is kept."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        self.seen += map(list, sentences)
        return [read_tree("(S " + " ".join(f"(X {word})" for word in words) + ")") for words in sentences]


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Flat:
    flat = Flat()
    monkeypatch.setattr(samples, "parser", lambda: flat)
    return flat


def test_the_lowest_the_middle_and_the_highest_are_drawn_by_the_text_that_misses_most(runs: Any, parser: Flat) -> None:
    long = "(S " + "(NN _) " * (MOST_WORDS + 1) + ")"
    texts = [
        runs.text(
            "ours",
            "tree",
            f"{t}: {long if t == 5 else WANTED}",
            f"pub {t} {'<>'[part - 1]}",
            index=part,
            success=t / 10 + part / 100,
        )
        for t in range(6)
        for part in (2, 1)
    ]
    made = trees(read([runs.evaluation("a", *texts)]))
    assert parser.seen == [["pub", t, "<"] for t in "024"]
    # Of S, NP and VP only S is in both: 2 x 1 of 3 + 1.
    assert made.count(r"\<** (ours, F1 50.0)") == 3
    assert {line[:4] for line in made.split("\n") if "VBZ" in line} == {"    "}


def test_a_text_without_words_has_no_tree_and_other_targets_are_none(runs: Any, parser: Flat) -> None:
    empty = runs.text("ours", "tree", f"1: {WANTED}", "", success=0.0)
    other = runs.text("ours", "regex", "2: (a|b)", "a", success=1.0)
    assert "F1 0.0" in trees(read([runs.evaluation("a", other, empty)]))
    assert trees(read([runs.evaluation("b", other)])) == "" and parser.seen == []


# -- traces


def trace(runs: Any, *texts: str) -> str:
    steps = [{"t": 1 - i / 10, "texts": [text]} for i, text in enumerate(texts)]
    return traces(read([runs.extra("t", "trace.json", {"title": "a *b*", "steps": steps})]))


def test_words_are_bold_where_they_are_the_last_ones(runs: Any) -> None:
    lines = trace(runs, "A the, is.", "The pub, is cheap.").split("\n")
    # A mark that touches an open word is open too: Markdown has no bold that begins within a word.
    assert lines[0] == r"| t | a \*b\*, sentence 1 |"
    assert lines[2:] == ["| 1.00 | A the, is. |", "| 0.90 | **The pub, is cheap.** |"]
    assert (
        trace(runs, "The one, is cheap.", "The pub, is cheap.").split("\n")[2]
        == "| 1.00 | **The** one, **is cheap.** |"
    )


def test_what_the_callback_of_a_generation_sees_makes_a_trace(runs: Any) -> None:
    tokenizer = build_word_tokenizer(["The pub is cheap.", "The pub is near."], min_count=1)
    counts = torch.zeros(9)
    counts[5:7] = 1
    lm = DiffusionLM.new(ModelConfig(width=8, layers=1, heads=2, embedding_dim=4, max_length=8), tokenizer, counts)
    steps: list[dict[str, Any]] = []

    def watch(step: Step) -> None:
        texts = [tokenizer.decode_unfinished(ids) for ids in step.ids.tolist()]
        steps.append({"t": step.t, "texts": texts})

    lm.generate(2, steps=20, seed=0, callback=watch)
    made = traces(read([runs.extra("t", "trace.json", {"title": "tiny", "steps": steps})])).split("\n\n")
    assert len(made) == 2
    assert all(len(table.split("\n")) == MOST_STEPS + 2 and table.endswith("** |") for table in made)


@pytest.mark.parametrize("record", [{}, {"steps": []}, {"steps": [{"t": 1.0}]}, {"steps": 3}])
def test_another_layout_is_refused(runs: Any, record: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"trace\.json"):
        traces(read([runs.extra("t", "trace.json", record)]))
