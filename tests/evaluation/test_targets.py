"""Files of targets, each control's own lines, and targets drawn from labels."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_lm.annotate.labels import FORMAT
from diffusion_lm.annotate.trees import read_tree, spans_of
from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.control.span import read_span
from diffusion_lm.evaluation.targets import MakeTargetsConfig, make_targets, read_records, read_sentences
from diffusion_lm.evaluation.tasks import Asked, EvaluateConfig, find_tasks, name_of
from diffusion_lm.flags import read as read_flags
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import build_word_tokenizer

FIELDS = {"food": ["Thai", "Fast food"], "price": ["cheap", "£20-25"]}
TOKENIZER = build_word_tokenizer(["Pavo is a pub. It serves Thai food."], min_count=1)
HOST: Any = SimpleNamespace(
    tokenizer=TOKENIZER,
    asset=lambda kind: SimpleNamespace(config=SimpleNamespace(fields=FIELDS)),
    has=lambda kind: True,
)
GAP = {"left": "Pavo is", "right": "Thai food.", "references": ["a pub. It serves", "cheap. It serves"]}
WORDS = ["START", "The", "pub", "\n", "END"]
TAGS = ["START", "DET", "NOUN", "PUNCT", "END"]


def write(folder: Path, *lines: Any) -> str:
    path = folder / "targets.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(task: str, path: str) -> dict[str, Asked]:
    return find_tasks([task])[0].targets(HOST, path)


def only(task: str, path: str) -> list[Target]:
    return [asked[task] for asked in read(task, path).values()]


def test_an_attribute_is_put_together_as_the_corpus_writes_it(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '["price", ":", "\\u00a3", "20", "-", "25"]',
        "",
        '["food", ":", "fast", "Food"]',
        '["priceRange", ":", "cheap"]',
        '{"attribute": "food=thai"}',
    )
    assert list(read("attribute", path)) == ["price=£20-25", "food=Fast food", "price=cheap", "food=Thai"]


def test_start_end_and_the_line_break_are_no_words(tmp_path: Path) -> None:
    first, second = only("pos", write(tmp_path, {"pos": TAGS, "words_": WORDS}, "", {"pos": ["NOUN", "PUNCT"]}))
    assert (first.value, first.words, str(second)) == ("DET NOUN", ("The", "pub"), "3: NOUN PUNCT")
    (span,) = only("span", write(tmp_path, {"spans": [[0, 1, "NP"], [1, 2, "S::VP"]], "words_": WORDS}))
    assert span.value == "1:2:NP 2:2:S+VP"
    assert read_sentences(write(tmp_path, {"words_": WORDS})) == [("The", "pub")]


def test_trees_are_those_given_or_the_parses_of_the_words(tmp_path: Path) -> None:
    line = {"words_": ["The", "Punter", "is", "a", "cheap", "pub", "."]}
    first, second = only("tree", write(tmp_path, line, {"tree": "(S (NP _ _) (VP _))"}))
    assert first.value.count("_") == 7 and first.value.startswith("(S (NP (DT _)")
    assert second.value == "(S (NP _ _) (VP _))"


def test_a_line_may_carry_several_targets(tmp_path: Path) -> None:
    line = {"pos": TAGS, "words_": WORDS, "attr": ["food", ":", "thai"], "length": 2}
    ((name, asked),) = read("pos+attribute+length", write(tmp_path, line)).items()
    assert name == name_of(asked) == "1: DET NOUN & food=Thai & 2"
    assert {part: target.value for part, target in asked.items()} == {
        "pos": "DET NOUN", "attribute": "food=Thai", "length": "2",
    }  # fmt: skip


def test_lines_and_anlg_s_object_are_read_alike(tmp_path: Path) -> None:
    anlg = {"obs1": GAP["left"], "obs2": GAP["right"], "gold_labels": GAP["references"]}
    lines = only("infill", write(tmp_path, GAP, anlg))
    assert lines == [Target("Pavo is ___ Thai food.", line, (), tuple(GAP["references"])) for line in (1, 2)]
    assert only("infill", write(tmp_path, json.dumps({"a-1": anlg, "b-1": anlg}, indent=1))) == lines


def test_unknown_words_of_a_context_are_unk_and_its_sentence_is_not_compared(tmp_path: Path) -> None:
    (target,) = only("infill", write(tmp_path, GAP | {"left": "Zebra is", "words_": ["Zebra", "is"]}))
    assert (target.value, target.words) == ("UNK is ___ Thai food.", ())
    assert CONTROLS["infill"].answer(target, "UNK is a pub. It serves Thai food.") == "a pub. It serves"


@pytest.mark.parametrize("middle", ["a pub. It serves", "cheap, child-friendly -", "'", ""])
def test_the_answer_is_what_stands_in_the_gap(middle: str) -> None:
    target = Target('Pavo (the pub), is ___ "good" at £20.')
    assert CONTROLS["infill"].answer(target, f'Pavo (the pub), is {middle} "good" at £20.').split() == middle.split()
    assert CONTROLS["infill"].answer(Target("___ Thai food."), "It serves Thai food.") == "It serves"


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("task", "line", "odd"),
    [
        ("attribute", '["food", ":"', "delimiter"),
        ("attribute", '"food"', "list"),
        ("attribute", '["food", ":", 3]', "list"),
        ("attribute", '["food", "Thai"]', ":"),
        ("attribute", '["colour", ":", "red"]', "colour"),
        ("attribute", '["food", ":", "Klingon"]', "Klingon"),
        ("attribute", DEEP, ""),
        ("attribute", '["food", ":", "Th\\u0000ai"]', "x00"),
        ("attribute", '["food", ":", "Th\\ud800ai"]', "ud800"),
        ("pos", "[]", "pos"),
        ("pos", '{"pos": ["END"]}', "no tag"),
        ("pos", '{"pos": ["X"], "words_": []}', "words"),
        ("pos", '{"pos": ["X"], "words_": [""]}', "words_"),
        ("pos", '{"pos": ["X"], "words_": [" "]}', "no word"),
        ("pos", json.dumps({"pos": ["X"] * 513, "words_": ["a"] * 513}), "513"),
        ("pos", DEEP, ""),
        ("tree", '{"tree": "(S (NP _)"}', "breaks"),
        ("tree", '{"pos": []}', "neither"),
        ("span", '{"spans": []}', "spans"),
        ("span", '{"spans": [[0, "NP"]]}', "first, last, label"),
        ("length", '{"length": "x"}', "length"),
        ("infill", json.dumps(GAP | {"left": " ", "right": ""}), "left"),
        ("infill", json.dumps(GAP | {"right": "a ___ b"}), "___"),
        ("infill", json.dumps(GAP | {"references": []}), "references"),
        ("infill", '{"obs1": "x", "obs2": "y", "gold_labels": "z"}', "gold_labels"),
        ("pos+attribute", '{"pos": ["NOUN"], "attr": "food"}', "list"),
        ("pos+attribute", '{"pos": ["NOUN"], "attr": ["food", ":", "stones"]}', "stones"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, task: str, line: str, odd: str) -> None:
    good = {
        "pos": ["X"],
        "attr": ["food", ":", "Thai"],
        "tree": "(S (NP _))",
        "spans": [[0, 0, "NP"]],
        "length": 2,
        **GAP,
    }
    with pytest.raises(UserError, match=f"Line 2 of .* is no target.*{odd}"):
        read(task, write(tmp_path, good, line))


def test_files_of_targets_come_by_flags_and_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("targets:\n  pos: a\n  pos+attribute: b\n")
    config, _ = read_flags(EvaluateConfig, ["--config", str(path), "--targets.pos", "c", "--targets.tree=d"])
    assert config.targets == {"pos": "c", "pos+attribute": "b", "tree": "d"}


def test_a_bad_entry_is_named_and_so_is_a_target_that_stands_there_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Entry 2 of .*left"):
        read("infill", write(tmp_path, {"a": GAP, "b": {"text": "x"}}))
    with pytest.raises(UserError, match=r"Line 2 of .*food=Thai"):
        read("attribute", write(tmp_path, '["food", ":", "Thai"]', '["food", ":", "thai"]'))
    assert len(read("length", write(tmp_path, '{"length": 3}\n{"length": 3}'))) == 2  # told apart by their lines


def test_a_file_without_targets_is_one_sentence(tmp_path: Path) -> None:
    for text in ("", "{}"):
        with pytest.raises(UserError, match="no target"):
            read("infill", write(tmp_path, text))
    (tmp_path / "bytes").write_bytes(b"\xff")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "bytes", "\0"):
        with pytest.raises(UserError, match="cannot be read"):
            read_records(path, lambda record, row: record, "{}")


def test_the_papers_targets_are_read(shared_data: Path) -> None:
    for task, file in (("pos", "pos"), ("span", "spans"), ("pos", "compose_pos_attr")):
        path = shared_data / "control_targets" / f"{file}.jsonl"
        assert len(read(task, str(path))) == len(path.read_text(encoding="utf-8").splitlines())
    assert len(only("infill", str(shared_data / "anlg" / "dev.json"))) == 1780


# -- drawn from labels -------------------------------------------------------------------------------------------------

TREES = [
    "(S (NP (DT The) (NN pub)) (VP (VBZ closes)))",
    "(S (NP (NNP Zizzi)) (VP (VBZ is) (ADJP (JJ cheap))))",
    "(S (NP (NNP Zizzi)) (VP (VBZ closes)))",
]


def labels_of(folder: Path, *trees: str) -> str:
    lines: list[Any] = [{"format": FORMAT, "fingerprint": "x", "n": len(trees)}]
    for tree in trees:
        words = read_tree(tree).leaves()
        lines.append({"words": words, "pos": ["NOUN"] * len(words), "tree": tree})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_targets_are_of_different_sentences_and_true_of_them(tmp_path: Path) -> None:
    config = MakeTargetsConfig(labels=labels_of(tmp_path, *TREES, TREES[0]), n=3, out=str(tmp_path / "targets"))
    files = make_targets(config)
    assert set(files) == {"pos", "tree", "span", "length"}
    found = [only(name, str(files[name])) for name in ("pos", "tree", "span", "length")]
    by_words = {tuple(read_tree(tree).leaves()): read_tree(tree) for tree in TREES}
    assert len({target.words for target in found[0]}) == 3
    for tags, tree, span, length in zip(*found, strict=True):
        assert tags.words == tree.words == span.words == length.words
        assert len(tags.value.split()) == len(tags.words) == int(length.value)
        whole = by_words[span.words]
        assert read_span(span.value) in spans_of(whole) and set(read_tree(tree.value).leaves()) == {"_"}
        assert spans_of(read_tree(tree.value)) == spans_of(whole)
    first = {name: path.read_bytes() for name, path in files.items()}
    assert {name: path.read_bytes() for name, path in make_targets(config).items()} == first


def test_gaps_are_in_long_sentences_and_put_together_they_are_the_sentence(tmp_path: Path) -> None:
    words = ["The", "Punter", "is", "a", "cheap", ",", "child", "-", "friendly", "pub", "near", "the", "river", "."]
    trees = ["(X " + " ".join(f"(NN {word})" for word in words[:n]) + ")" for n in range(6, 15)]
    files = make_targets(MakeTargetsConfig(labels=labels_of(tmp_path, *trees), n=8, out=str(tmp_path / "targets")))
    lines = [json.loads(line) for line in files["infill"].read_text().splitlines()]
    assert len(lines) == 7  # two of the nine have fewer than eight words
    for line in lines:
        parts = [len(words_of(part)) for part in (line["left"], *line["references"], line["right"])]
        assert min(parts) >= 2 and sum(parts) == len(line["words_"]) and parts[1] <= len(line["words_"]) // 2
        assert words_of(" ".join((line["left"], *line["references"], line["right"]))) == line["words_"]


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, *TREES)
    with pytest.raises(UserError, match="3 different sentences, fewer than the 4"):
        make_targets(MakeTargetsConfig(labels=labels, n=4, out=str(tmp_path / "targets")))
    assert not (tmp_path / "targets").exists()
    with pytest.raises(UserError, match="cannot be written"):
        make_targets(MakeTargetsConfig(labels=labels, n=1, out=labels))
    with pytest.raises(UserError, match="n must be at least 1"):
        MakeTargetsConfig(n=0)
