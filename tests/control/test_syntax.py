"""Trees and spans: leaves, Bayes' rule on what was counted, drawn trees, and success."""

import itertools

import pytest
import torch
from hypothesis import given

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.tagger import Parser
from diffusion_lm.annotate.trees import Leaf, leaves_of, read_tree, spans_of, spans_of_leaves, tree_of
from diffusion_lm.annotate.trees import Span as Constituent
from diffusion_lm.control import Guidance, Keyword, Length, Pos, Span, Tree
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.leaves import LeafChain, LeafTable
from diffusion_lm.control.syntax import NO_CONSTITUENT, NO_LABEL, SyntaxModel
from diffusion_lm.text.spacing import split_words
from tests.annotate.test_trees import charts
from tests.control.conftest import programs


class AsGiven(Parser):
    """Says the same of every sentence."""

    def __init__(self, tree):
        self.tree = tree

    def parse(self, sentences):
        return [read_tree(self.tree) for _ in sentences]


@given(charts())
def test_leaves_say_the_whole_tree(chart):
    size, spans = chart
    tree = tree_of(["w"] * size, ["T"] * size, spans)
    assert set(spans_of_leaves(leaves_of(tree))) == set(spans_of(tree))


def test_a_leaf_without_a_tag_has_any():
    tree = read_tree("(S (NP _ _) (VP (VBZ is) (NP _)))")
    assert leaves_of(tree, tags=["VBZ"]) == [
        Leaf(None, ("S", "NP")),
        Leaf(None, (), ("NP",)),
        Leaf("VBZ", ("VP",)),
        Leaf(None, ("NP",), ("S", "VP", "NP")),
    ]


def test_the_classes_of_a_batch_are_those_of_each_sentence(lm):
    model, trees = (
        lm.asset(SyntaxModel),
        ["(S (NP (DT _) (NN _)) (VP (VBZ _)))", "(NP (NN _))", "(NP (NP (NN _)) (CC _) (NP (NN _)))"],
    )
    tags = [["DET", "NOUN", "VERB"], ["NOUN"], ["NOUN", "CCONJ", "NOUN"]]
    labels = [
        (Annotation(["w"] * len(t), t, tree), spans_of(read_tree(tree))) for t, tree in zip(tags, trees, strict=True)
    ]
    found, charts = model.classes(labels).of(torch.tensor([2, 0, 1, 2]), 5)
    for row, number in enumerate([2, 0, 1, 2]):
        n = len(tags[number])
        assert [model.config.tags[i] for i in found[row, 1 : n + 1].tolist()] == tags[number]
        assert found[row, 0] == NO_LABEL and (found[row, n + 1 :] == NO_LABEL).all()
        known = {(s.start + 1, s.stop): s.label for s in labels[number][1] if s.label in model.config.chains}
        for first, last in itertools.product(range(5), repeat=2):
            cell = int(charts[row, first, last])
            if not 1 <= first <= last <= n:
                assert cell == NO_LABEL
            elif label := known.get((first, last)):
                assert model.config.chains[cell - 1] == label
            else:
                assert cell == NO_CONSTITUENT


def test_a_span_by_classifier_has_the_lengths_that_sentences_with_it_have(lm):
    model = lm.asset(SyntaxModel)
    model.lengths.zero_()
    trees = ["(S (NP (DT _) (NN _)) (VP (VBZ _)))"] * 3 + ["(S (NP (NN _)) (VP (VBZ _)) (. .))"]
    model.count(
        [(Annotation(["w"] * len(read_tree(tree).leaves()), [], tree), spans_of(read_tree(tree))) for tree in trees]
    )
    assert model.lengths_with([Constituent(0, 3, "S")]).argmax() == 3
    p = model.lengths_with([Constituent(0, 1, "NP")])
    assert p.argmax() == 3 and p[0] == 0 and p.sum().item() == pytest.approx(1)
    drawn = [program.canvas.words for program in programs(Span("1:2:NP", by_classifier=True), lm, n=40)]
    assert drawn.count(3) > 30
    assert programs(Length(4) & Span("2:4:NP", by_classifier=True), lm)[0].canvas.words == 4
    model.lengths.zero_()


def test_columns_are_tags_times_contexts(lm):
    table = lm.asset(LeafTable)
    leaf = next(leaf for leaf in table.config.leaves if leaf.tag == "DT" and leaf.opens[-1:] == ("NP",))
    kind = table.config.leaves.index(leaf)
    (the,) = lm.tokenizer.encode("the")
    seen = sum(count for word, k, count in table.counts.tolist() if (word, k) == (the, kind))
    all_seen = sum(count for _, k, count in table.counts.tolist() if k == kind)
    tag = table.tags.config.tags.index("DT")
    of_the, of_all = table.tags.alone[the, tag], table.tags.alone[:, tag].sum()
    columns = table.columns([leaf])[0] - table.tags.columns(["DT"])[0]
    torch.testing.assert_close(columns[the].exp(), (seen + 3 * all_seen / of_all) / (of_the + 3))


def test_the_chain_draws_from_the_exact_posterior():
    noise = torch.Generator().manual_seed(0)
    follows = torch.rand(4, 4, generator=noise)
    follows /= follows.sum(1, keepdim=True)
    emits = torch.rand(3, 2, generator=noise)
    emits /= emits.sum(1, keepdim=True)
    tags = torch.tensor([0, 1, 0])
    joint = {}
    for leaves in itertools.product(range(3), repeat=3):
        steps = [follows[a, b] for a, b in itertools.pairwise((3, *leaves, 3))]
        joint[leaves] = float(torch.stack(steps).prod() * emits[leaves, tags].prod())
    drawn = LeafChain(follows, emits).sample(tags, 40_000, 1.0, noise)
    for leaves, p in joint.items():
        share = (drawn == torch.tensor(leaves)).all(1).float().mean().item()
        assert share == pytest.approx(p / sum(joint.values()), abs=0.01)


def test_a_tree_fixes_the_length_and_the_words_that_it_names(lm):
    tree = Tree("(S (NP (NNP _) (NNP _)) (VP (VBZ is) (ADJP (JJ _))) (. .))", weight=1.0)
    for control in (tree, 0.5 * tree & Length(5), tree & Keyword("cheap")):
        for words in lm.generate(3, control, steps=3).words:
            assert len(words) == 5 and words[2] == "is" and words[4] == "."


def test_success_of_a_tree_is_bracket_f1():
    gold = "(S (NP (NNP a)) (VP (VBZ b)))"
    assert Tree(gold, parser=lambda: AsGiven(gold)).success(["a b", ""]).tolist() == [1, 0]
    half = Tree(gold, parser=lambda: AsGiven("(S (NP (NNP a)) (PP (VBZ b)))"))
    assert half.success(["a b"])[0] == pytest.approx(2 / 3)
    # A phrase of one word is a phrase in success too.
    assert Tree("(S (NP _) (VP _))", parser=lambda: AsGiven(gold)).success(["a b"]).tolist() == [1]


def test_every_drawn_tree_has_the_spans(lm):
    control, table = Span("1:2:NP") & Span("3:6:VP"), lm.asset(LeafTable)
    numbers = table.trees_with([Constituent(0, 2, "NP"), Constituent(2, 6, "VP")])
    assert numbers
    fitting = [0.8 * table.columns(table.tree(number)) for number in numbers]
    for program in programs(control, lm, 4):
        assert program.canvas.words == len(program.columns[0])
        assert any(torch.equal(program.columns[0], columns) for columns in fitting)


def test_a_span_beside_a_length_draws_trees_of_that_length(lm):
    lengths = {
        int(lm.asset(LeafTable).lengths[tree]) for tree in lm.asset(LeafTable).trees_with([Constituent(0, 2, "NP")])
    }
    assert {9, 12} < lengths
    for control in (Span("1:2:NP") & Length(12), Length(12) & 2 * Span("1:2:NP"), 2 * (Span("1:2:NP") & Length(12))):
        assert {len(program.columns[0]) for program in programs(control, lm, 9)} == {12}
        assert {len(words) for words in lm.generate(3, control, steps=2).words} == {12}
    nines = programs(Span("1:2:NP"), lm, 2, Canvas(30, words=9))
    assert [len(program.columns[0]) for program in nines] == [9, 9]


def test_a_span_that_no_tree_has_there_is_taken_from_elsewhere(lm):
    # The toy grammar has no sentence so long that a noun phrase could stand at its 28th word.
    (program,) = programs(Span("28:29:NP"), lm)
    (columns,) = program.columns
    assert len(columns) == 29 and not columns[:27].any() and columns[27:].any(1).all()
    assert all(len(words) >= 29 for words in lm.generate(2, Span("28:29:NP"), steps=1).words)


def test_success_of_a_span_is_its_presence():
    control = Span("1:1:NP 2:2:VP", parser=lambda: AsGiven("(S (NP (NNP a)) (VP (VBZ b)))"))
    assert control.success(["a b", ""]).tolist() == [1, 0]
    assert [str(part) for part in control.parts()] == ["span=1:1:NP", "span=2:2:VP"]


def test_the_papers_guidance_follows_classifiers(lm):
    control = Pos("DET NOUN VERB", by_classifier=True) & Tree("(S (NP _ cheap) (VP _))", by_classifier=True)
    out = lm.generate(2, control, steps=2, guidance=Guidance.paper("composition"))
    assert [len(split_words(text)) for text in out] == [3, 3] and {words[1] for words in out.words} == {"cheap"}
    assert out.network_evaluations > 2
