import pytest
import torch
from safetensors.torch import load_file

from diffusion_lm.annotate.parser import (
    FARTHEST,
    VECTOR,
    SpanParser,
    equal_length_batches,
    features,
    span_index,
)
from diffusion_lm.annotate.tagger import SpacyTagger
from diffusion_lm.annotate.trees import chart_of
from diffusion_lm.common import UserError

LINES = [
    ["The", "Eagle", "is", "a", "family", "-", "friendly", "pub", "."],
    ["Cheap", "food", "!"],
    ["Yes"],
    ["Near", "Burger", "King", ",", "prices", "(", "high", ")", "vary", "."],
]


def test_features_have_the_shapes_and_ranges_the_model_expects(vocabulary):
    for words, found in zip(LINES, features(LINES, vocabulary), strict=True):
        assert found.classes.shape == (len(words), 7)
        assert found.vectors.shape == (len(words), VECTOR)
        assert len(found.tags) == len(words)
        assert (found.classes >= 0).all()
        assert (found.classes < torch.tensor(vocabulary.sizes)).all()
    first = features(LINES, vocabulary)[0].classes
    determiner, name = (1 + vocabulary.tags.index(tag) for tag in ("DT", "NNP"))
    dependency = 1 + vocabulary.dependencies.index("det")
    assert first[0].tolist() == [determiner, dependency, FARTHEST + 1, name, 0, 0, 1]


def test_a_span_is_the_difference_of_its_fenceposts(tiny):
    classes, vectors = torch.zeros(1, 3, 7, dtype=torch.int16), torch.randn(1, 3, VECTOR)
    seen = {}
    tiny.lstm.register_forward_hook(lambda module, args, out: seen.update(hidden=out[0]))
    logits = tiny(classes, vectors)
    zero = torch.zeros(8)
    ahead = [zero, *seen["hidden"][0, :, :8]]
    back = [*seen["hidden"][0, :, 8:], zero]
    starts, stops = span_index(3)
    for row, (i, j) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        first = tiny.forward_post(ahead[j] - ahead[i]) + tiny.backward_post(back[i] - back[j])
        torch.testing.assert_close(logits[0, row], tiny.out(tiny.norm(first).relu()))


def test_trees_keep_words_and_order_and_do_not_depend_on_the_batch(tiny):
    trees = tiny.parse(LINES)
    assert [len(tree.leaves()) for tree in trees] == list(map(len, LINES))
    assert trees[3].leaves()[5] == "-LRB-"
    assert all((0, len(words)) in chart_of(tree) for words, tree in zip(LINES, trees, strict=True))
    assert [tiny.parse([words])[0] for words in LINES] == trees
    assert tiny.parse([]) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "has 0 words"),
        (["a"] * 513, "has 513 words"),
        (["a", ""], "''"),
        (["a b"], "'a b'"),
        (["a" * 10_000 + "\0"], "aaa...'"),
        (["a\0b"], r"'a\x00b'"),
        (["\ud800"], r"'\ud800'"),
    ],
)
def test_what_is_no_sentence_is_refused(tiny, words, named):
    for label in (tiny.parse, *[SpacyTagger().tag] * bool(words)):
        with pytest.raises(UserError, match=r"[Ss]entence 2") as error:
            label([["Yes"], words])
        assert named in str(error.value)


def test_the_tagger_has_no_tags_for_no_words():
    assert SpacyTagger().tag([[], ["Yes"]]) == [[], ["INTJ"]]


def test_saved_and_loaded(tiny, tmp_path):
    half = tiny.half().float()
    half.save_pretrained(tmp_path / "parser")
    loaded = SpanParser.from_pretrained(tmp_path / "parser")
    assert loaded.config == half.config
    for name, value in half.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert load_file(tmp_path / "parser" / "model.safetensors")["out.weight"].dtype == torch.float16
    half.save_pretrained(tmp_path / "parser")
    assert [path.name for path in tmp_path.iterdir()] == ["parser"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "format"])
def test_a_folder_that_is_no_parser_is_refused(tiny, tmp_path, damage):
    folder = tmp_path / "parser"
    if damage != "missing":
        tiny.save_pretrained(folder)
    if damage == "truncated":
        (folder / "model.safetensors").write_bytes(b"short")
    if damage == "format":
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="parser"):
        SpanParser.from_pretrained(folder)


def test_batches_hold_each_sentence_once_and_one_length():
    lengths = [3, 5, 3, 3, 7, 5, 3]
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = equal_length_batches(lengths, 6, generator)
        assert sorted(row for batch in batches for row in batch) == list(range(7))
        assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)
        assert all(len(batch) * lengths[batch[0]] <= max(6, lengths[batch[0]]) for batch in batches)
