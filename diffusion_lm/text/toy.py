"""A small grammar of restaurant sentences whose fields, part-of-speech tags and trees are known.

It stands in for E2E in tests and in the quick start: small enough for a model that trains in a minute, and with gold
annotation for every control.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from diffusion_lm.text.fields import Document

# A value of a field is written as it is parsed: a constituent, or the words that a rule wraps in one.
_VALUES: dict[str, tuple[str, ...]] = {
    "name": (
        "(NP (NNP Juniper))", "(NP (NNP Pavo))", "(NP (NNP Marlowe))", "(NP (NNP Saffron) (NNP Gate))",
        "(NP (NNP Ninth) (NNP Bell))", "(NP (DT The) (NNP Copper) (NNP Kettle))", "(NP (DT The) (NNP Quiet) (NNP Heron))",
    ),
    "near": (
        "(NP (NNP Opal) (NNP Cinema))", "(NP (NNP Willow) (NNP Bridge))", "(NP (NNP Tern) (NNP Theatre))",
        "(NP (NNP Hotel) (NNP Lumen))",
    ),
    "Type": ("(NN cafe)", "(NN bar)", "(NN restaurant)", "(NN tavern)"),
    "area": ("(NN harbour)", "(JJ old) (NN town)", "(NN market) (NN square)", "(NN park)"),
    "food": ("(JJ Thai)", "(JJ Greek)", "(JJ Turkish)", "(JJ Korean)", "(JJ Mexican)"),
    "price": ("(JJ cheap)", "(JJ moderate)", "(JJ steep)"),
    "customer rating": ("(JJ great)", "(JJ mixed)", "(JJ poor)"),
    "family friendly": ("(NNS families)", "(NNS adults)"),
}  # fmt: skip

# <X> is replaced by a rule of X or by the value of the field X. The first number is the rule's weight.
_RULES: dict[str, tuple[tuple[int, str], ...]] = {
    "SENTENCE": (
        (6, "(S <SUBJECT> <VP> (. .))"),
        (3, "(S <SUBJECT> (VP <VP> (CC and) <VP>) (. .))"),
        (3, "(S (S <SUBJECT> <VP>) (, ,) (CC <AND>) (S (NP (PRP it)) <VP>) (. .))"),
        (2, "(S (PP (IN Near) <near>) (, ,) <name> <VP> (. .))"),
        (2, "(S (PP (IN By) (NP (DT the) <area>)) (, ,) <name> <VP> (. .))"),
        (2, "(S (NP (EX There)) (VP (VBZ is) (NP <KIND> (VP (VBN called) <name>)) <WHERE>) (. .))"),
        (2, "(S (PP (IN For) <MEAL>) (, ,) (VP (VB try) <name>) (. .))"),
        (1, "(S (VP (VB Visit) <name> (PP (IN for) <MEAL>)) (. .))"),
    ),
    "SUBJECT": ((3, "<name>"), (1, "(NP <name> (, ,) <KIND> (, ,))"), (1, "(NP <name> <WHERE>)")),
    "VP": (
        (3, "(VP (VBZ is) <KIND>)"),
        (3, "(VP (VBZ <SERVES>) <MEAL>)"),
        (2, "(VP (VBZ has) <RATING>)"),
        (1, "(VP (VBZ gets) <RATING>)"),
        (2, "(VP (VBZ <STANDS>) <WHERE>)"),
        (2, "(VP (VBZ welcomes) (NP <family friendly>))"),
        (1, "(VP (VBZ is) (ADJP (JJ open) (PP (TO to) (NP <family friendly>))))"),
        (1, "(VP (VBZ has) <PRICES>)"),
    ),
    "KIND": (
        (3, "(NP (DT a) <Type>)"),
        (3, "(NP (DT a) <food> <Type>)"),
        (2, "(NP (NP (DT a) <MOOD> <Type>) <WHERE>)"),
        (2, "(NP (NP (DT a) <Type>) (PP (IN with) <PRICES>))"),
        (1, "(NP (NP (DT a) <Type>) (SBAR (WHNP (WDT that)) (S (VP (VBZ <SERVES>) <MEAL>))))"),
    ),
    "MEAL": ((4, "<DISH>"), (2, "(NP <DISH> (PP (IN at) <PRICES>))"), (1, "(NP <DISH> (CC and) <DRINK>)")),
    "DISH": ((4, "(NP <food> (NN food))"), (2, "(NP <food> (NNS dishes))"), (1, "(NP <TASTY> <food> (NN food))")),
    "DRINK": ((1, "(NP (NN coffee))"), (1, "(NP (NN wine))"), (1, "(NP (JJ cold) (NNS drinks))")),
    "RATING": (
        (2, "(NP (DT a) <customer rating> (NN rating))"),
        (2, "(NP <customer rating> (NNS reviews))"),
        (1, "(NP (NP <customer rating> (NNS reviews)) (PP (IN from) (NP (PRP$ its) (NNS guests))))"),
    ),
    "PRICES": ((3, "(NP <price> (NNS prices))"), (1, "(NP (ADJP (RB rather) <price>) (NNS prices))")),
    "WHERE": ((3, "(PP (IN <CLOSE>) <near>)"), (3, "(PP (IN by) (NP (DT the) <area>))")),
    "AND": ((2, "and"), (1, "but")),
    "SERVES": ((3, "serves"), (1, "offers"), (1, "cooks")),
    "STANDS": ((1, "stands"), (1, "sits")),
    "CLOSE": ((2, "near"), (1, "beside")),
    "MOOD": ((1, "(JJ quiet)"), (1, "(JJ busy)"), (1, "(JJ small)")),
    "TASTY": ((1, "(JJ tasty)"), (1, "(JJ fresh)")),
}

_UPOS = {
    "DT": "DET", "NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "JJ": "ADJ", "RB": "ADV", "IN": "ADP",
    "TO": "ADP", "CC": "CCONJ", "PRP": "PRON", "PRP$": "PRON", "EX": "PRON", "WDT": "PRON", "VB": "VERB",
    "VBZ": "VERB", "VBN": "VERB", ",": "PUNCT", ".": "PUNCT",
}  # fmt: skip

_SLOT = re.compile(r"<([^<>]+)>")
_LEAF = re.compile(r"\((\S+) ([^\s()]+)\)")
SIZES = {"train": 4000, "dev": 400, "test": 400}
DESCRIPTION = repr((_VALUES, _RULES, _UPOS, SIZES))
"""All that the sentences depend on."""


def toy_documents(seed: int) -> Iterator[Document]:
    """Sentences of 5 to 20 words from the grammar, without end; the same seed gives the same.

    Every document has its fields (each value stands verbatim in the text), one UPOS tag a word, and its tree. Words are
    separated by spaces, save that a comma or full stop follows the word before it directly.
    """
    rng = random.Random(seed)
    while True:
        tree, fields = _derive(rng)
        leaves = _LEAF.findall(tree)
        # A sentence that gives a field twice is not worth keeping: it contradicts or repeats itself.
        if fields is not None and 5 <= len(leaves) <= 20:
            text = re.sub(r" (?=[,.])", "", " ".join(word for _, word in leaves))
            tags = tuple("AUX" if word == "is" else _UPOS[tag] for tag, word in leaves)
            yield Document(text, fields, tags, tree)


def _derive(rng: random.Random) -> tuple[str, dict[str, str] | None]:
    """A tree and the fields it mentions, or None for the fields if one is mentioned twice."""
    tree, fields = "<SENTENCE>", dict[str, str]()
    while slot := _SLOT.search(tree):
        symbol = slot[1]
        if symbol in fields:
            return tree, None
        if symbol in _VALUES:
            subtree = rng.choice(_VALUES[symbol])
            fields[symbol] = " ".join(word for _, word in _LEAF.findall(subtree))
        else:
            weights, expansions = zip(*_RULES[symbol], strict=True)
            subtree = rng.choices(expansions, weights)[0]
        tree = tree[: slot.start()] + subtree + tree[slot.end() :]
    return tree, fields
