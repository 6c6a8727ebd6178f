from itertools import product

import numpy as np
import pytest

from diffusion_lm.annotate.parser import best_spans


def _trees(start, stop):
    """Every binary tree over words start..stop as its set of spans."""
    if stop - start == 1:
        yield frozenset([(start, stop)])
        return
    for middle in range(start + 1, stop):
        for left, right in product(_trees(start, middle), _trees(middle, stop)):
            yield left | right | {(start, stop)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_best_tree_of_all(size):
    scores = np.random.randn(6, size, size + 1)
    for score, spans in zip(scores, best_spans(scores), strict=True):
        best = max(sum(max(0.0, score[span]) for span in tree) for tree in _trees(0, size))
        assert sum(max(0.0, score[span]) for span in spans) == pytest.approx(best)
        assert any(set(spans) <= tree for tree in _trees(0, size))
        assert spans[0] == (0, size)


def test_without_any_constituent_only_the_sentence_is_one():
    assert best_spans(np.full((1, 4, 5), -1.0)) == [[(0, 4)]]
