"""Targets drawn from labels: what `evaluate` reads, of the sentences they were taken from."""

import json

import pytest

from diffusion_lm.annotate.labels import FORMAT
from diffusion_lm.annotate.trees import read_tree, spans_of
from diffusion_lm.common import UserError
from diffusion_lm.control.span import read_span
from diffusion_lm.evaluation.targets import (
    POS_EXAMPLE,
    SPAN_EXAMPLE,
    TREE_EXAMPLE,
    MakeTargetsConfig,
    make_targets,
    pos_target,
    read_infill_targets,
    read_records,
    span_target,
    tree_target,
)
from diffusion_lm.text.spacing import words_of

TREES = [
    "(S (NP (DT The) (NN pub)) (VP (VBZ closes)))",
    "(S (NP (NNP Zizzi)) (VP (VBZ is) (ADJP (JJ cheap))))",
    "(S (NP (NNP Zizzi)) (VP (VBZ closes)))",
]


@pytest.fixture
def labels(tmp_path):
    lines = [{"format": FORMAT, "fingerprint": "x", "n": 4}]
    for tree in [*TREES, TREES[0]]:
        words = read_tree(tree).leaves()
        lines.append({"words": words, "pos": ["NOUN"] * len(words), "tree": tree})
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_targets_are_of_different_sentences_and_true_of_them(labels, tmp_path):
    config = MakeTargetsConfig(labels=labels, n=3, out=str(tmp_path / "targets"))
    files = make_targets(config)
    pos = read_records(files["pos"], pos_target, POS_EXAMPLE)
    trees = read_records(files["trees"], tree_target, TREE_EXAMPLE)
    spans = read_records(files["spans"], span_target, SPAN_EXAMPLE)
    by_words = {tuple(read_tree(tree).leaves()): read_tree(tree) for tree in TREES}
    assert len({target.words for target in pos}) == 3
    for tags, tree, span in zip(pos, trees, spans, strict=True):
        assert tags.words == tree.words == span.words
        assert len(tags.value.split()) == len(tags.words)
        whole = by_words[span.words]
        assert read_span(span.value) in spans_of(whole) and set(read_tree(tree.value).leaves()) == {"_"}
        assert spans_of(read_tree(tree.value)) == spans_of(whole)
    first = {task: path.read_bytes() for task, path in files.items()}
    assert {task: path.read_bytes() for task, path in make_targets(config).items()} == first


def test_gaps_are_in_long_sentences_and_put_together_they_are_the_sentence(tmp_path):
    words = [
        "The",
        "Punter",
        "is",
        "a",
        "cheap",
        ",",
        "child",
        "-",
        "friendly",
        "pub",
        "near",
        "the",
        "river",
        ".",
    ]
    tree = "(X " + " ".join(f"(NN {word})" for word in words) + ")"
    lines = [{"format": FORMAT, "fingerprint": "x", "n": 9}]
    lines += [{"words": words[:n], "pos": ["X"] * n, "tree": tree} for n in range(6, 15)]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = MakeTargetsConfig(labels=str(path), n=8, out=str(tmp_path / "targets"))
    targets = read_infill_targets(make_targets(config)["infill"])
    assert len(targets) == 7  # two of the nine have fewer than eight words
    for target in targets:
        parts = [len(words_of(part)) for part in (target.left, *target.references, target.right)]
        assert min(parts) >= 2 and sum(parts) == len(target.words)
        assert parts[1] <= len(target.words) // 2
        text = " ".join((target.left, *target.references, target.right))
        assert words_of(text) == list(target.words)


def test_what_cannot_be_drawn_is_one_sentence(labels, tmp_path):
    with pytest.raises(UserError, match="3 different sentences, fewer than the 4 that are wanted"):
        make_targets(MakeTargetsConfig(labels=labels, n=4, out=str(tmp_path / "targets")))
    assert not (tmp_path / "targets").exists()
    with pytest.raises(UserError, match="cannot be written"):
        make_targets(MakeTargetsConfig(labels=labels, n=1, out=labels))
    with pytest.raises(UserError, match="n must be at least 1"):
        MakeTargetsConfig(n=0)
