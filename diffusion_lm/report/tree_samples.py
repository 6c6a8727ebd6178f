"""A few texts of the tree task as trees, beside the trees that were asked for."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.annotate.trees import bracket_f1, read_tree
from diffusion_lm.report.collection import Collection
from diffusion_lm.report.samples import by_target, mean_success, spread, success_of
from diffusion_lm.report.trees import brackets, tree_svg
from diffusion_lm.text.spacing import bare, split_words

TASK = "tree"
MOST_WORDS, TREES = 14, 3


@dataclass(frozen=True)
class TreePair:
    """A target and a text, both drawn, and the labelled bracket F1 of the two in [0, 1]."""

    system: str
    text: str
    f1: float
    wanted: str
    found: str


def tree_pairs(found: Collection) -> list[TreePair]:
    """The targets with the lowest, the middle and the highest success of the first system that did trees.

    Of each the text that misses most.

    Only targets of at most `MOST_WORDS` words, which can be read, or the shortest if there are none.
    """
    done = [each for each in found.of_task(TASK) if each.texts]
    if not done:
        return []
    groups = by_target(done[0].texts)
    wanted = {target: read_tree(target.partition(": ")[2]) for target in groups}
    shortest = min(len(tree.leaves()) for tree in wanted.values())
    small = [target for target in groups if len(wanted[target].leaves()) <= max(MOST_WORDS, shortest)]
    chosen = spread(sorted(small, key=lambda target: mean_success(groups[target])), TREES)
    texts = [min(groups[target], key=success_of).text for target in chosen]

    # The only part of a report that needs torch, and so as late as can be.
    from diffusion_lm.control.tree import our_parser

    parses = our_parser().parse([[bare(word) for word in split_words(text)] for text in texts])
    out = []
    for target, text, parse in zip(chosen, texts, parses, strict=True):
        tree = wanted[target]
        shared = brackets(tree) & brackets(parse)
        out.append(
            TreePair(
                done[0].row.system,
                text,
                bracket_f1([tree], [parse]),
                tree_svg(tree, "the tree that was asked for", shared),
                tree_svg(parse, "the tree of the text", shared),
            )
        )
    return out
