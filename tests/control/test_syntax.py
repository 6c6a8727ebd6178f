"""Trees and spans: leaves, Bayes' rule on what was counted, drawn trees, latent classifiers, and bad input."""

import itertools

import pytest
import torch
from hypothesis import given

from diffusion_lm.annotate.tagger import UPOS, Parser
from diffusion_lm.annotate.trees import Leaf, leaves_of, read_tree, spans_of, spans_of_leaves, tree_of
from diffusion_lm.annotate.trees import Span as Constituent
from diffusion_lm.common import UserError
from diffusion_lm.control import Guidance, Infill, Length, Pos, Span, Tree
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Latents
from diffusion_lm.control.syntax import PosByClassifier, SpanByClassifier, SyntaxConfig, SyntaxModel, TreeByClassifier
from diffusion_lm.control.tables import LeafChain
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.spacing import split_words
from diffusion_lm.text.toy import sample_toy
from diffusion_lm.training.tables import Sentence, count_leaves
from tests.annotate.test_trees import charts


class AsGiven(Parser):
    """Says the same of every sentence."""

    def __init__(self, tree):
        self.tree = tree

    def parse(self, sentences):
        return [read_tree(self.tree) for _ in sentences]


@pytest.fixture(scope="module")
def parsed_lm(lm, tmp_path_factory):
    """The tiny model with counts of the toy grammar's trees and untrained classifiers."""
    folder = tmp_path_factory.mktemp("parsed")
    lm.save_pretrained(folder)
    sentences = [
        Sentence(lm.tokenizer.encode(d.text), leaves_of(read_tree(d.tree)), d.tags)
        for d in sample_toy(300, seed=1)
        if not lm.tokenizer.unknown_words(d.text)
    ]
    table = count_leaves(sentences, UPOS, lm.vocab_size, parser="gold", smoothing=0.1, min_count=1, lm=lm.fingerprint)
    table.save_pretrained(folder / "controls" / "tree")
    table.tags.save_pretrained(folder / "controls" / "pos")
    torch.manual_seed(0)
    config = SyntaxConfig(
        list(UPOS), ["S", "NP", "VP", "PP"], lm.config.embedding_dim, 32, "sqrt", lm.fingerprint, 16, 1, 2
    )
    SyntaxModel(config).save_pretrained(folder / "controls" / "syntax")
    return DiffusionLM.from_pretrained(folder, "cpu")


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


def test_columns_are_tags_times_contexts(parsed_lm):
    table = parsed_lm.leaf_table()
    leaf = next(leaf for leaf in table.config.leaves if leaf.tag == "DT" and leaf.opens[-1:] == ("NP",))
    kind = table.config.leaves.index(leaf)
    (the,) = parsed_lm.tokenizer.encode("the")
    seen = sum(count for word, k, count in table.counts.tolist() if (word, k) == (the, kind))
    all_seen = sum(count for _, k, count in table.counts.tolist() if k == kind)
    tag = table.tags.config.tags.index("DT")
    of_the, of_all = table.tags.alone[the, tag], table.tags.alone[:, tag].sum()
    expected = (seen + 3 * all_seen / of_all) / (of_the + 3)
    columns = table.columns([leaf])[0] - table.tags.columns(["DT"])[0]
    torch.testing.assert_close(columns[the].exp(), expected)


def test_the_chain_draws_from_the_exact_posterior():
    noise = torch.Generator().manual_seed(0)
    follows = torch.rand(4, 4, generator=noise)
    follows /= follows.sum(1, keepdim=True)
    emits = torch.rand(3, 2, generator=noise)
    emits /= emits.sum(1, keepdim=True)
    tags = torch.tensor([0, 1, 0])
    joint = {
        leaves: float(
            follows[3, leaves[0]]
            * follows[leaves[0], leaves[1]]
            * follows[leaves[1], leaves[2]]
            * follows[leaves[2], 3]
            * emits[leaves, tags].prod()
        )
        for leaves in itertools.product(range(3), repeat=3)
    }
    drawn = LeafChain(follows, emits).sample(tags, 40_000, 1.0, noise)
    for leaves, p in joint.items():
        share = (drawn == torch.tensor(leaves)).all(1).float().mean().item()
        assert share == pytest.approx(p / sum(joint.values()), abs=0.01)


def test_a_tree_fixes_the_length_and_the_words_that_it_names(parsed_lm):
    tree = Tree("(S (NP (NNP _) (NNP _)) (VP (VBZ is) (ADJP (JJ _))) (. .))", weight=1.0)
    out = parsed_lm.generate(3, tree, steps=3)
    for words in out.words:
        assert len(words) == 5 and words[2] == "is" and words[4].strip("\u200b").endswith(".")
    assert parsed_lm.generate(3, 0.5 * tree & Length(5), steps=2).words[0][2] == "is"


def test_success_of_a_tree_is_bracket_f1():
    gold = "(S (NP (NNP a)) (VP (VBZ b)))"
    assert Tree(gold, parser=lambda: AsGiven(gold)).success(["a b", ""]).tolist() == [1, 0]
    half = Tree(gold, parser=lambda: AsGiven("(S (NP (NNP a)) (PP (VBZ b)))"))
    assert half.success(["a b"])[0] == pytest.approx(2 / 3)


def test_a_phrase_of_one_word_is_a_phrase_in_success_too(parsed_lm):
    found = "(S (NP (NNP a)) (VP (VBZ b)))"
    tree = Tree("(S (NP _) (VP _))", parser=lambda: AsGiven(found))
    assert tree.bind(parsed_lm).success(["a b"]).tolist() == [1]
    assert TreeByClassifier(of=tree).bind(parsed_lm).success(["a b"]).tolist() == [1]


def test_every_drawn_tree_has_the_spans(parsed_lm):
    control = Span("1:2:NP 3:7:VP").bind(parsed_lm)
    wanted = {Constituent(0, 2, "NP"), Constituent(2, 7, "VP")}
    assert control.usual
    for tree in control.usual:
        assert wanted <= set(spans_of_leaves(parsed_lm.leaf_table().tree(tree.number)))
    generator = torch.Generator().manual_seed(0)
    length = control.usual[0].words
    for held in control.drawn(4, Canvas(30, words=length), generator):
        assert len(held.columns) == length
    out = parsed_lm.generate(4, Span("1:2:NP") & Length(length), steps=2)
    assert [len(words) for words in out.words] == [length] * 4


def test_a_span_that_no_tree_has_there_is_taken_from_elsewhere(parsed_lm):
    # The toy grammar has no sentence so long that a noun phrase could stand at its 20th word.
    (held,) = Span("28:29:NP").bind(parsed_lm).drawn(1, Canvas(30), torch.Generator())
    assert len(held.columns) == 29 and not held.columns[:27].any() and held.columns[27:].any(1).all()
    assert all(len(words) >= 29 for words in parsed_lm.generate(2, Span("28:29:NP"), steps=1).words)


def test_success_of_a_span_is_its_presence():
    control = Span("1:1:NP 2:2:VP", parser=lambda: AsGiven("(S (NP (NNP a)) (VP (VBZ b)))"))
    assert control.success(["a b", ""]).tolist() == [1, 0]
    assert [str(part) for part in control.parts()] == ["span=1:1:NP", "span=2:2:VP"]


def test_parts_of_speech_lean_on_leaves_that_have_them(parsed_lm, monkeypatch):
    tags = "VERB PROPN ADP ADJ NOUN PUNCT"
    table = parsed_lm.leaf_table()
    index = torch.tensor([table.config.universal.index(tag) for tag in tags.split()])
    drawn = table.chain.sample(index, 20, 0.3, torch.Generator().manual_seed(0))
    kinds = {(kind, tag) for kind, tag, _ in table.emits.tolist()}
    assert all((kind, tag) in kinds for row in drawn.tolist() for kind, tag in zip(row, index.tolist(), strict=True))


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (Span("3:2:NP"), "A span is FIRST:LAST:LABEL"),
        (Span("x"), "A span is FIRST:LAST:LABEL"),
        (Span(""), "No span is given"),
        (Span("1:3:NP 2:4:VP"), "cannot both be constituents"),
        (Span("1:3:NP 1:3:VP"), "cannot both be constituents"),
        (Span("1:90:NP"), "ends at word 90, but the model writes at most 30"),
        (Span("1:2:XX"), "no constituent XX; the constituents are"),
        (Span("1:9:NP") & Length(5), "no number of words suits all of them"),
        (Span("1:2:NP") & Tree("(S (NP _ _))"), "leave the span out"),
        (Tree("(S (NP _ _)"), "breaks at character"),
        (
            Tree("(S (NP (QQ _) (ZZ _)))"),
            "no tag or constituent QQ, ZZ; the constituents are .*, and the tags",
        ),
        (Tree("(S (NP unheard _))"), "not in the model's vocabulary"),
        (Tree("(S (NP _ _))") & Length(3), "Two lengths contradict each other"),
        (Tree("(NN _)"), "A tag alone is no tree"),
        (Tree("(S (NP (DT The) (NN _)) (VP _))") & Infill("There ___ ."), "Word 1 of the infill is not"),
        (Infill("___ .") & Tree("(S (NP (DT The) (NN _)) (VP is))"), "Word 3 of the infill is not"),
        (TreeByClassifier(of=Tree("(S (XP _ _))")), "knows no constituent"),
        (PosByClassifier(of=Pos("NOUN FOO")), "knows no tag FOO"),
    ],
    ids=str,
)
def test_bad_input_is_told_in_one_sentence(control, message, parsed_lm):
    with pytest.raises(UserError, match=message):
        parsed_lm.generate(1, control, steps=1)


@pytest.mark.parametrize(
    "control",
    [
        PosByClassifier(of=Pos("DET NOUN VERB")),
        TreeByClassifier(of=Tree("(S (NP (DT _) (NN _)) (VP (VBZ _)))")),
        SpanByClassifier(of=Span("1:2:NP 3:3:VP")),
    ],
    ids=str,
)
def test_the_energies_of_classifiers_agree_with_finite_differences(control, parsed_lm):
    bound = control.bind(parsed_lm)
    z = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    t, mask = torch.tensor([0.3, 0.6]), torch.ones(2, 5, dtype=torch.bool)

    def energy(at):
        return bound.energy(Latents(at, t, mask, at, at, at[0])).sum()

    (gradient,) = torch.autograd.grad(energy(z), z)
    direction = gradient / gradient.norm()
    step = 1e-2
    difference = (energy(z + step * direction) - energy(z - step * direction)) / (2 * step)
    assert difference.item() == pytest.approx(gradient.norm().item(), rel=2e-2)


def test_a_tree_labels_every_cell_of_the_chart_and_a_span_its_own(parsed_lm):
    tree = TreeByClassifier(of=Tree("(S (NP (DT _) (NN _)) (VP (VBZ _)))")).bind(parsed_lm)
    # First, last, class: chains S, NP, VP, PP are 1 to 4, and 0 is no constituent.
    assert tree.classes().tolist() == [[0, 0, 0], [0, 1, 2], [0, 2, 1], [1, 1, 0], [1, 2, 0], [2, 2, 3]]
    span = SpanByClassifier(of=Span("1:2:NP")).bind(parsed_lm)
    assert span.classes().tolist() == [[0, 1, 2]]


def test_the_papers_guidance_follows_them(parsed_lm):
    control = PosByClassifier(of=Pos("DET NOUN VERB"))
    out = parsed_lm.generate(2, control, steps=2, guidance=Guidance.paper("pos"))
    assert [len(split_words(text)) for text in out] == [3, 3]
    assert out.network_evaluations > 2
