import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import spacy

from diffusion_lm.annotate import labels as corpus_labels
from diffusion_lm.annotate import parser, tagger
from diffusion_lm.annotate.labels import AnnotateConfig, annotate, read_annotations
from diffusion_lm.annotate.tagger import SpacyTagger
from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.common import UserError

LABEL = '{"words": ["Yes"], "pos": ["INTJ"], "tree": "(INTJ (UH Yes))"}'
LINES = [["The", "pub", "serves", "food", "."], ["Yes"], ["Near", "the", "river", "(", "cheap", ")", "."]]


@pytest.fixture(autouse=True)
def _bundled(tiny, tmp_path, monkeypatch):
    """A tiny parser in the place of the bundled one."""
    tiny.save_pretrained(tmp_path / "parser")
    monkeypatch.setattr(parser, "BUNDLED", tmp_path / "parser")
    parser.parser.cache_clear()
    yield
    parser.parser.cache_clear()


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
    deep = "[" * 100_000
    for damage in (
        '{"words": ["Ye',
        deep,
        "[]",
        '{"words": 1, "pos": [], "tree": ""}',
        LABEL.replace("INTJ", 'X", "Y'),
    ):
        out.write_text("".join([*lines[:2], damage + "\n", *lines[3:]]))
        with pytest.raises(UserError, match="Line 3"):
            list(read_annotations(out))
    out.write_bytes(b"".join([*(line.encode() for line in lines[:3]), b"\xff\xfe\n"]))
    with pytest.raises(UserError, match="Line 4"):
        list(read_annotations(out))
    out.write_text(deep)
    with pytest.raises(UserError, match="no file of labels"):
        list(read_annotations(out))


def test_workers_label_as_this_process_does(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_labels, "_CHUNK", 2)
    monkeypatch.setattr(
        corpus_labels, "ProcessPoolExecutor", lambda workers, *args, **options: ThreadPoolExecutor(workers)
    )
    assert annotate(LINES, tmp_path / "two.jsonl", workers=2) == annotate(LINES, tmp_path / "one.jsonl", workers=1)


def test_a_sentence_without_words_is_refused(tmp_path):
    with pytest.raises(UserError, match="Sentence 1"):
        annotate([[]], tmp_path / "labels.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        annotate(LINES, tmp_path / "file" / "labels.jsonl", workers=1)
    with pytest.raises(UserError, match="workers"):
        AnnotateConfig(workers=0)


def test_the_model_of_spacy_is_known_by_its_weights(tmp_path, monkeypatch):
    other = tmp_path / "en_core_web_sm" / f"en_core_web_sm-{tagger.VERSION}"
    for name in tagger.WEIGHTS:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(b"other weights")
    (tmp_path / "en_core_web_sm" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    tagger.load_spacy.__wrapped__()  # the copy is found where the official name has other weights
    monkeypatch.setattr(tagger, "MODELS", ("en_core_web_sm",))
    with pytest.raises(UserError, match=tagger.SHA256):
        tagger.load_spacy.__wrapped__()
    monkeypatch.setattr(tagger, "SHA256", hashlib.sha256(b"other weights" * len(tagger.WEIGHTS)).hexdigest())
    monkeypatch.setattr(spacy, "load", lambda folder, exclude: folder)
    assert tagger.load_spacy.__wrapped__() == other
