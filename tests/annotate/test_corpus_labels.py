import importlib

import pytest

from diffusion_lm.annotate import labels as corpus_labels
from diffusion_lm.annotate import parser as backends
from diffusion_lm.annotate.labels import annotate, read_annotations
from diffusion_lm.annotate.tagger import SpacyTagger
from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.common import UserError

LINES = [["The", "pub", "serves", "food", "."], ["Yes"], ["Near", "the", "river", "(", "cheap", ")", "."]]


@pytest.fixture(autouse=True)
def _bundled(tiny, tmp_path, monkeypatch):
    """A tiny parser in the place of the bundled one."""
    tiny.save_pretrained(tmp_path / "parser")
    monkeypatch.setattr(backends, "BUNDLED", tmp_path / "parser")
    corpus_labels._backends.cache_clear()


def test_labels_are_written_and_read_back(tmp_path, monkeypatch):
    seen = []
    out = tmp_path / "labels.jsonl"
    made = annotate(LINES, out, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    assert [each.words for each in made] == LINES
    assert [each.pos for each in made] == SpacyTagger().tag(LINES)
    assert [len(read_tree(each.tree).leaves()) for each in made] == list(map(len, LINES))
    assert list(read_annotations(out)) == made
    assert not list(tmp_path.glob(".*partial"))

    monkeypatch.setattr(corpus_labels, "_label", None)  # the second call must not label
    assert annotate(LINES, out, workers=1) == made


def test_other_inputs_are_labelled_anew(tmp_path):
    out = tmp_path / "labels.jsonl"
    annotate(LINES, out, workers=1)
    assert len(annotate(LINES[:2], out, workers=1)) == 2
    assert len(list(read_annotations(out))) == 2


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    out = tmp_path / "labels.jsonl"
    with pytest.raises(UserError, match="no file of labels"):
        list(read_annotations(out))
    annotate(LINES, out, workers=1)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="2 of 3"):
        list(read_annotations(out))
    out.write_text("".join(lines)[:-9])
    with pytest.raises(UserError, match="Line 4"):
        list(read_annotations(out))


def test_a_sentence_without_words_is_refused(tmp_path):
    with pytest.raises(UserError, match="Sentence 1"):
        annotate([[]], tmp_path / "labels.jsonl")


def test_backends_are_chosen_by_name(monkeypatch):
    assert isinstance(backends.tagger("spacy"), SpacyTagger)
    assert backends.parser("ours").parse([["Yes"]])
    with pytest.raises(UserError, match="spacy or stanza"):
        backends.tagger("spacey")
    with pytest.raises(UserError, match="ours, benepar or stanza"):
        backends.parser("mine")


@pytest.mark.parametrize(("choose", "name"), [("tagger", "stanza"), ("parser", "stanza"), ("parser", "benepar")])
def test_a_backend_that_is_not_installed_says_how_to_get_it(choose, name, monkeypatch):
    def refuse(module):
        raise ImportError(module)

    monkeypatch.setattr(backends, "import_module", refuse)
    assert importlib.import_module is not refuse
    with pytest.raises(UserError, match=f"pip install {name}"):
        getattr(backends, choose)(name)
