"""How good and how fast a constituency parser is: labelled bracket F1 on a treebank, gold spans kept, sentences a second.

python benchmarks/parser.py --trees gum_test.txt --spans control_targets/spans.jsonl [--folder runs/parser]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from rich.console import Console

from diffusion_lm.annotate.parser import BUNDLED, SpanParser
from diffusion_lm.annotate.tagger import Parser
from diffusion_lm.annotate.trees import CHAIN, MOST_WORDS, bracket_f1, chart_of, word_of
from diffusion_lm.training.parser import read_treebank


def spans_kept(path: Path, parser: Parser) -> tuple[float, int]:
    """The share of gold spans (first and last word, label) that the parser finds with that very chain of labels."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    words = [[word for word in row["words_"][1:-1] if word.strip()] for row in rows]
    # The files write a chain with two colons, and some spans count the line break at the end, which is no word.
    kept = [
        chart_of(tree).get((first, min(last + 1, len(text)))) == label.replace("::", CHAIN)
        for row, text, tree in zip(rows, words, parser.parse(words), strict=True)
        for first, last, label in row["spans"]
    ]
    return sum(kept) / len(kept), len(kept)


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--trees", type=Path, required=True, help="gold trees, one a line")
    options.add_argument("--spans", type=Path, help="gold spans of control_targets/spans.jsonl")
    options.add_argument("--folder", type=Path, default=BUNDLED, help="a parser other than the bundled one")
    given = options.parse_args()
    parser = SpanParser.from_pretrained(given.folder)
    console = Console(highlight=False)
    gold = read_treebank(given.trees, MOST_WORDS)
    words = [[word_of(leaf) for leaf in tree.leaves()] for tree in gold]
    parser.parse(words[:20])  # what happens once only
    began = time.perf_counter()
    found = parser.parse(words)
    speed = len(gold) / (time.perf_counter() - began)
    console.print(
        f"{bracket_f1(gold, found):.2%} labelled bracket F1 on {len(gold)} sentences, {speed:.0f} sentences/s"
    )
    if given.spans:
        share, count = spans_kept(given.spans, parser)
        console.print(f"{share:.1%} of {count} gold spans kept")


if __name__ == "__main__":
    main()
