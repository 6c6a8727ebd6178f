"""Syntax tree: the text's parse is a given one (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from diffusion_lm.annotate import trees
from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.parser import parser
from diffusion_lm.annotate.tagger import Parser
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import BANNED
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Target, words_of_record
from diffusion_lm.control.language import check_known, vocabulary
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.program import Asset, Host, Program
from diffusion_lm.control.syntax import Syntactic, SyntaxModel, chart_energy
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import bare, words_of

if TYPE_CHECKING:
    from nltk import Tree as Brackets

WEIGHT = 0.8
"""Power to which p(label | word) is taken. Both neighbours of a word and its constituents count as independent evidence
though they overlap, so the whole counts too much at 1: less success and less fluency (docs/log.md)."""
PADDING = "."
"""The word that the original pads a text with before it parses it."""
_PENN = """$ '' , . : `` -LRB- -RRB- ADD AFX CC CD DT EX FW HYPH IN JJ JJR JJS LS MD NFP NN NNP NNPS NNS PDT POS PRP PRP$ RB
    RBR RBS RP SYM TO UH VB VBD VBG VBN VBP VBZ WDT WP WP$ WRB XX _SP"""
PENN_TAGS = frozenset(_PENN.split())
"""What is a tag above one word and no constituent, so that `(NP _)` is a noun phrase."""


def parsed(judge: Parser, texts: Sequence[str]) -> list[Brackets | None]:
    """The trees of texts; None for a text without words."""
    words = [words_of(text) for text in texts]
    found = iter(judge.parse([sentence for sentence in words if sentence]))
    return [next(found) if sentence else None for sentence in words]


def named_words(tree: Brackets, host: Host, what: str) -> tuple[tuple[int, frozenset[int]], ...]:
    """Place and token ids of the leaves that are a certain word; a `UserError` names `what` if the vocabulary lacks one."""
    given = {place: trees.word_of(leaf) for place, leaf in enumerate(tree.leaves()) if leaf != trees.ANY_WORD}
    if not given:
        return ()
    words = vocabulary(host, what)
    check_known(given.values(), words, what)
    # A mark has a token for each way to stick to its neighbours; any of them is the word.
    ids = {word: frozenset(i for i, token in enumerate(words) if bare(token) == word) for word in given.values()}
    return tuple((place, ids[word]) for place, word in given.items())


@final
@dataclass(frozen=True)
class Tree(Syntactic, name="tree"):
    """The text has this constituency tree.

    No classifier and no gradient: a tree is the sequence of its leaves' tags and of the constituents that begin and
    end at each leaf, so with p(w_i | z_t) factorised over positions Bayes' rule needs only
    p(tag_i, opens_i, closes_i | w_i, tag_i-1, tag_i+1), which `LeafTable` has counted.
    """

    help = 'The constituency tree, "(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ _))) (. .))": _ is any word, The is The.'
    example = '{"tree": "(S (NP (DT _) (NN _)) (VP (VBZ _)))"} or {"words_": ["The", "pub", "closes"]}'
    counted: ClassVar[list[type[Asset]]] = [LeafTable]
    tree: str
    """Brackets, "(S (NP (DT The) (NN _)) (VP (VBZ _) (ADJP (JJ _))) (. .))": `_` is any word, a word is that word, and a
    leaf without a tag, as in (NP _ _), may have any."""
    weight: float = WEIGHT
    """Power of the likelihood; 1 is Bayes' rule as it stands."""
    by_classifier: bool = False
    """Whether the chart is followed by the gradient of a latent classifier, as the paper does, and not by what is counted.

    That chart has constituents and no Penn Treebank tags: those of the tree are then not followed. Named words are kept."""
    parser: Callable[[], Parser] = field(default=parser, repr=False, compare=False)
    """Makes the outside judge of success."""

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        tree = trees.read_tree(self.tree, host.max_words)
        leaves, named = trees.leaves_of(tree, PENN_TAGS), named_words(tree, host, f"the tree {self.tree!r}")
        fixed = [canvas.with_words(len(leaves)).with_named(named) for canvas in canvases]
        columns: tuple[Tensor, ...] = ()
        if named:
            others = torch.zeros(len(leaves), host.tokenizer.vocab_size)
            for place, ids in named:
                others[place] = BANNED
                others[place, list(ids)] = 0.0
            columns = (self.weight * others,)
        if self.by_classifier:
            energies = (chart_energy(host.asset(SyntaxModel), trees.spans_of_leaves(leaves), len(leaves)),)
            return [Program(canvas, columns, energies=energies) for canvas in fixed]
        vocabulary(host, f"The tree {self.tree!r}")
        table = host.asset(LeafTable)
        check_labels(leaves, table)
        columns += (self.weight * table.columns(leaves),)
        return [Program(canvas, columns) for canvas in fixed]

    def success(self, texts: Sequence[str]) -> Tensor:
        """Labelled bracket F1 of each text's parse with the tree, [B]."""
        leaves = trees.leaves_of(trees.read_tree(self.tree), PENN_TAGS)
        labels = [leaf.tag or trees.ANY_WORD for leaf in leaves]
        wanted = trees.tree_of(labels, labels, {span[:2]: span.label for span in trees.spans_of_leaves(leaves)})
        found = parsed(self.parser(), texts)
        return torch.tensor([0.0 if tree is None else trees.bracket_f1([wanted], [tree]) for tree in found])

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        if host.has(SyntaxModel) and not host.has(LeafTable):
            return f"with --syntax_by classifier: {', '.join(host.asset(SyntaxModel).config.chains)}"
        return ", ".join(host.asset(LeafTable).labels)

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """A tree, or the words whose tree is wanted; `prepared` then finds it."""
        record = record if isinstance(record, dict) else {}
        words, tree = words_of_record(record), record.get("tree", "")
        if not isinstance(tree, str) or not (tree or words):
            raise ValueError("it has neither a tree nor words")
        if tree:
            trees.read_tree(tree)
        return Target(tree, line, words)

    @classmethod
    def prepared(cls, target: Target, host: Host) -> Target:
        """With a tree where only words were given: their parse, its leaves free."""
        return target if target.value else replace(target, value=trees.without_words(*parser().parse([target.words])))

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float]:
        """Labelled bracket F1 of the parse of the text cut to the tree's length, or padded to it with full stops."""
        wanted = trees.read_tree(target.value)
        size = len(wanted.leaves())
        fitted = [[*words_of(text), *[PADDING] * size][:size] for text in texts]
        return [trees.bracket_f1([wanted], [found]) for found in parser().parse(fitted)]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [trees.without_words(trees.read_tree(labels.tree))]

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """Depth first: "(S", "(NP", the tags of words, and ")"; a bracket speaks of the word after it or, closing, before it."""
        return list(_brackets(trees.read_tree(value), 0))


def _brackets(tree: Brackets, place: int) -> Iterator[tuple[str, int]]:
    if trees.is_tag(tree):
        yield tree.label(), place
        return
    yield f"({tree.label()}", place
    for child in tree:
        yield from [(trees.ANY_WORD, place)] if isinstance(child, str) else _brackets(child, place)
        place += 1 if isinstance(child, str) else len(child.leaves())
    yield ")", place - 1


def check_labels(leaves: Sequence[trees.Leaf], table: LeafTable) -> None:
    """See that the table knows all tags and labels; a `UserError` if it does not; those that it knows are listed."""
    if not leaves[0].opens:
        raise UserError(f"A tag alone is no tree; put it into a constituent, (NP ({leaves[0].tag or 'NN'} _)).")
    known = table.tags.config.tags
    labels = {label for leaf in leaves for label in leaf.opens} - set(table.labels)
    tags = {leaf.tag for leaf in leaves if leaf.tag is not None} - set(known)
    if labels or tags:
        wrong = f"There is no tag or constituent {', '.join(sorted(labels | tags))}"
        raise UserError(f"{wrong}; the constituents are {', '.join(table.labels)}, and the tags {', '.join(known)}.")
