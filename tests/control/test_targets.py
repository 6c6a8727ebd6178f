"""What `evaluate` asks of each control: a line of a file, and how the paper counts."""

import pytest

from diffusion_lm.control.control import CONTROLS, Target

SENTENCE = ["START", "The", "pub", "\n", "END"]


@pytest.mark.parametrize(
    ("task", "record", "value", "words"),
    [
        ("attribute", ["food", ":", "Fast", "food"], "food=Fast food", ()),
        ("attribute", {"attr": ["price", ":", "£", "20"]}, "price=£20", ()),
        ("length", {"length": 12}, "12", ()),
        ("pos", {"pos": ["START", "DET", "NOUN", "PUNCT", "END"], "words_": SENTENCE}, "DET NOUN", ("The", "pub")),
        ("pos", {"pos": "NOUN PUNCT"}, "NOUN PUNCT", ()),
        ("tree", {"tree": "(S (NP _) (VP _))"}, "(S (NP _) (VP _))", ()),
        ("tree", {"words_": SENTENCE}, "", ("The", "pub")),
        # From 0, both inclusive; a last word that is a line break is left out.
        ("span", {"spans": [[0, 1, "NP"], [1, 2, "S::VP"]], "words_": SENTENCE}, "1:2:NP 2:2:S+VP", ("The", "pub")),
        ("infill", {"left": "Ann left. ", "right": "", "references": ["So."]}, "Ann left. ___", ()),
        ("infill", {"obs1": "A.", "obs2": "C.", "gold_labels": ["B."]}, "A. ___ C.", ()),
        ("infill", {"obs1": "A.", "obs2": "C."}, "A. ___ C.", ()),
    ],
)
def test_a_line_of_a_file_is_a_target(task, record, value, words):
    found = CONTROLS[task].target(record, 3)
    assert (found.value, found.words) == (value, words)


@pytest.mark.parametrize(
    ("task", "record"),
    [
        ("attribute", ["food", "Thai"]),
        ("attribute", [":", "Thai"]),
        ("length", {"length": "12"}),
        ("length", {"length": True}),
        ("pos", []),
        ("pos", {"pos": ["END"]}),
        ("pos", {"pos": ["X"], "words_": []}),
        ("tree", {}),
        ("tree", {"tree": "(S (NP"}),
        ("span", {"spans": [[0, "NP"]]}),
        ("span", {"spans": []}),
        ("infill", {"left": "", "right": " ", "references": ["So."]}),
        ("infill", {"left": "A ___", "right": "", "references": ["So."]}),
        ("infill", {"left": "A", "right": "", "references": []}),
        ("infill", {"left": "A", "right": "", "references": ["So."], "words_": [3]}),
        ("keyword", {"keyword": " "}),
    ],
)
def test_a_line_that_is_none_is_refused(task, record):
    with pytest.raises(ValueError):
        CONTROLS[task].target(record, 3)


def test_a_target_is_asked_as_the_model_writes_it(lm):
    attribute = CONTROLS["attribute"].prepared(Target("FOOD= thai"), lm)
    assert attribute.value == "food=Thai"
    infill = CONTROLS["infill"].prepared(Target("The xylophone ___ near", words=("The", "xylophone")), lm)
    assert infill.value == "The UNK ___ near" and infill.words == ()
    made = lm.generate(2, CONTROLS["infill"].of_target(infill, None), steps=2)
    assert [words[:2] + words[-1:] for words in made.words] == [["The", "UNK", "near"]] * 2
    assert CONTROLS["infill"].answer(infill, "The UNK is so near") == "is so"


def test_the_papers_success_is_more_lenient():
    found = {
        "attribute": ("food=Thai", ["Thailand", "thai"], [1, 0]),
        "length": ("9", ["a b c d e f g", "a b c d e f"], [1, 0]),
        "pos": ("DET NOUN", ["The pub closes .", "Pubs close"], [1, 0]),
    }
    for task, (value, texts, success) in found.items():
        assert CONTROLS[task].paper_success(Target(value), texts) == success
