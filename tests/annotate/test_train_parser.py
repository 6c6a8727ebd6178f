import pytest

from diffusion_lm.annotate.parser import SpanParser
from diffusion_lm.annotate.trees import bracket_f1, read_tree
from diffusion_lm.common import UserError
from diffusion_lm.training.parser import ParserTrainConfig, read_treebank, train_parser

TREES = [
    "(S (NP (DT The) (NN pub)) (VP (VBZ serves) (NP (NN food))) (. .))",
    "(S (NP (DT A) (NN cat)) (VP (VBZ sleeps) (PP (IN near) (NP (DT the) (NN river)))) (. .))",
    "(S (VP (VB Go)) (. !))",
]


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "trees.txt"
    path.write_text("\n".join(TREES) + "\n")
    return path


def test_training_learns_its_trees_and_saves_the_best_epoch(treebank, tmp_path):
    seen = []
    out = tmp_path / "out"
    small = {"epochs": 20, "width": 16, "lr": 2e-2, "dropout": 0, "word_dropout": 0, "min_label_count": 1}
    config = ParserTrainConfig([str(treebank)], str(treebank), str(out), **small)
    best = train_parser(config, lambda done, f1: seen.append((done.epoch, f1)))
    assert best == max(f1 for _, f1 in seen) == 1
    assert [epoch for epoch, _ in seen] == list(range(1, 21))
    gold = list(map(read_tree, TREES))
    found = SpanParser.from_pretrained(out).parse([tree.leaves() for tree in gold])
    assert bracket_f1(gold, found) == 1


def test_long_sentences_are_skipped(treebank):
    assert len(read_treebank(treebank, 5)) == 2


def test_a_line_that_is_no_tree_is_left_out(treebank):
    treebank.write_text(f"(S (NP (DT The)\n{treebank.read_text()}")
    assert len(read_treebank(treebank, 100)) == 3


@pytest.mark.parametrize(("text", "said"), [("(S (NP", "line 1"), ("", "no tree"), (None, "cannot be read")])
def test_an_unusable_treebank_is_refused(tmp_path, text, said):
    path = tmp_path / "trees.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_treebank(path, 100)


@pytest.mark.parametrize("values", [{"train": []}, {"epochs": 0}, {"dropout": 1.0}, {"lr": 0.0}, {"max_words": 513}])
def test_settings_that_cannot_be_meant_are_refused(values):
    with pytest.raises(UserError):
        ParserTrainConfig(**{"train": ["x"], **values})


def test_a_label_too_rare_for_all_trees_is_refused(treebank, tmp_path):
    with pytest.raises(UserError, match="min_label_count"):
        train_parser(ParserTrainConfig([str(treebank)], out=str(tmp_path / "out"), min_label_count=50))
