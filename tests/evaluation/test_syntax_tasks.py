"""Tasks whose targets were taken from sentences: tags, trees, spans, and two controls at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.targets import TREE_EXAMPLE, read_records, tree_target, with_trees
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXTS = ["The Punter is a cheap pub.", "Zizzi serves Italian food."]
WORDS = ["START", "The", "Punter", "is", "a", "cheap", "pub", ".", "\n", "END"]
TAGS = ["START", "DET", "PROPN", "AUX", "DET", "ADJ", "NOUN", "PUNCT", "PUNCT", "END"]
LINE = {"words_": WORDS, "pos": TAGS, "spans": [[0, 1, "NP"]], "attr": ["food", ":", "French"]}


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    """The bundled model on a corpus of two sentences, with a tiny random judge."""
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("\n".join(TEXTS), encoding="utf-8")
    tokenizer = build_word_tokenizer(TEXTS, min_count=1)
    judge = JudgeConfig(tokenizer.vocab_size, width=8, layers=1, heads=2, max_length=64)
    JudgeLM(judge, tokenizer).save_pretrained(tmp_path / "judge")
    targets = tmp_path / "targets.jsonl"
    targets.write_text(json.dumps(LINE) + "\n", encoding="utf-8")
    return EvaluateConfig(
        judge=str(tmp_path / "judge"),
        corpus=CorpusConfig(str(tmp_path)),
        n=4,
        samples_per_target=4,
        steps=8,
        device="cpu",
        attribute_by="words",
        pos_targets=str(targets),
        tree_targets=str(targets),
        span_targets=str(targets),
        compose_targets=str(targets),
        out=str(tmp_path / "out"),
    )


def test_every_syntax_task_is_scored_beside_the_sentences_that_it_came_from(config: EvaluateConfig) -> None:
    tasks = ["pos", "tree", "span", "pos+attribute", "tree+attribute"]
    rows = evaluate(replace(config, tasks=tasks))[3:]
    assert [row.name for row in rows] == tasks
    assert all(row.success is not None and row.success > 0.4 and row.evaluations == 8 for row in rows)
    samples = [json.loads(line) for line in Path(config.out, "results.jsonl").read_text().splitlines()]
    both = [sample["parts"] for sample in samples if sample["task"] == "tree+attribute"]
    assert all(set(parts) == {"tree", "attribute"} and parts["attribute"] == 1 for parts in both)
    notes = json.loads(Path(config.out, "summary.json").read_text())["notes"]
    assert sum("1 of these stand in the training split" in note for note in notes) == len(tasks)
    assert sum("attribute by itself 100.0%" in note for note in notes) == 2


def test_the_gradient_of_the_classifiers_is_the_papers_way(config: EvaluateConfig) -> None:
    config = replace(config, syntax_by="classifier", attribute_by="classifier", guidance="paper", steps=4)
    rows = evaluate(replace(config, tasks=["pos", "tree", "span"], samples_per_target=2))[3:]
    # Three inner updates at each of the three steps that another one follows.
    assert [row.evaluations for row in rows] == [4 + 9] * 3


def test_trees_are_those_given_or_the_parses_of_the_words(tmp_path: Path) -> None:
    from diffusion_lm.annotate.parser import parser

    path = tmp_path / "trees.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({"tree": "(S (NP _ _) (VP _))"}) + "\n", encoding="utf-8")
    first, second = with_trees(read_records(path, tree_target, TREE_EXAMPLE), parser())
    assert first.value.count("_") == 7 and first.value.startswith("(S (NP (DT _)")
    assert second.value == "(S (NP _ _) (VP _))"


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("tree", {"tree": "(S (NP _)"}, "Line 1 of .* is no target .*breaks at character"),
        ("tree", {"pos": []}, "it has neither a tree nor words"),
        ("span", {"spans": []}, "it has no list of spans"),
        ("pos+attribute", {"pos": ["NOUN"], "attr": "food"}, "is not a list of strings"),
        ("pos+attribute", {"pos": ["NOUN"], "attr": ["food", ":", "stones"]}, "stones"),
        ("tree+attribute", [1], "it is no JSON object"),
    ],
)
def test_a_broken_line_is_named(config: EvaluateConfig, task: str, line: object, message: str) -> None:
    path = Path(str(config.pos_targets))
    path.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        evaluate(replace(config, tasks=[task]))
    assert not Path(config.out, "results.jsonl").exists()


def test_a_task_without_its_file_says_which_flag(config: EvaluateConfig) -> None:
    with pytest.raises(UserError, match="needs a file of spans: --span_targets FILE"):
        evaluate(replace(config, tasks=["span"], span_targets=None))
