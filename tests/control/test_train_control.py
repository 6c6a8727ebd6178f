"""`annotate` and every `train-control` on a small corpus, through the command line, and what then can be steered."""

from itertools import islice

import pytest

from diffusion_lm.annotate.trees import spans_of_leaves
from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.control import Pos, Span, Tree
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.toy import toy_documents

SMALL = ["--steps", "2", "--width", "16", "--layers", "1", "--heads", "2", "--batch_tokens", "256"]


@pytest.fixture(scope="module")
def place(lm, tmp_path_factory):
    """A folder with the tiny model and a small corpus in two splits."""
    folder = tmp_path_factory.mktemp("train_control")
    lm.save_pretrained(folder / "lm")
    texts = [d.text for d in islice(toy_documents(2), 60) if not lm.tokenizer.unknown_words(d.text)][:16]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "train.txt").write_text("\n".join(texts[:8]))
    (folder / "corpus" / "valid.txt").write_text("\n".join(texts[8:]))
    return folder


def run(place, name, *flags):
    corpus = ["--corpus.source", str(place / "corpus"), "--model", str(place / "lm")]
    return main(["train-control", name, *corpus, *flags])


def test_syntax_is_counted_learned_and_steers(place, capsys):
    labels, dev = str(place / "labels.jsonl"), str(place / "dev.jsonl")
    assert run(place, "pos", "--labels", labels) == 0
    assert run(place, "tree", "--labels", labels, "--min_count", "1") == 0
    assert "kinds of leaf" in capsys.readouterr().out
    assert run(place, "syntax", "--labels", labels, "--dev_labels", dev, "--min_count", "1", *SMALL) == 0
    assert "constituents" in capsys.readouterr().out
    lm = DiffusionLM.from_pretrained(place / "lm", "cpu")
    table = lm.asset(LeafTable)
    assert len(table.lengths) <= 8 and {"S", "NP"} <= set(table.labels)
    span = next(span for span in spans_of_leaves(table.tree(0)) if span.label == "NP")
    flag = f"{span.start + 1}:{span.stop}:NP"
    for control in (
        Pos("DET NOUN VERB"),
        Tree("(S (NP _ _) (VP _))"),
        Span(flag),
        Span(flag, by_classifier=True),
    ):
        assert len(lm.generate(2, control, steps=2)) == 2


def test_a_table_of_another_model_is_refused(place, tmp_path):
    other = DiffusionLM.from_pretrained("e2e-small", "cpu")
    DiffusionLM.from_pretrained(place / "lm", "cpu").save_pretrained(tmp_path)
    other.asset(LeafTable).save_pretrained(tmp_path / "controls" / "tree")
    with pytest.raises(UserError, match="belongs to another language model"):
        DiffusionLM.from_pretrained(tmp_path, "cpu").asset(LeafTable)
