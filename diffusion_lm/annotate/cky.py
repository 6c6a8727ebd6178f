"""CKY: the tree with the highest sum of its constituents' scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Splits = NDArray[np.intp]


def best_splits(scores: NDArray[np.floating]) -> Splits:
    """Where the best binary tree splits each span, for sentences of one length.

    A span below 0 may stand as no constituent, which costs nothing; the best binary tree with such spans is the best tree
    with any number of children.

    Args:
        scores: of each span as a constituent over as none, [B, L, L + 1]; only start < stop counts.

    Returns:
        Splits, [B, L, L + 1]; the span of one word has none and keeps 0.
    """
    batch, size, _ = scores.shape
    gain = np.maximum(scores, 0)
    splits = np.zeros(scores.shape, np.intp)
    # The best sum of a span by start and width, and by stop and width: with both at hand, all splits of all spans of a
    # width are the sum of two slices.
    by_start = np.zeros((batch, size + 1, size + 1))
    by_stop = np.zeros((batch, size + 1, size + 1))
    starts = np.arange(size)
    by_start[:, :size, 1] = by_stop[:, 1:, 1] = gain[:, starts, starts + 1]
    for width in range(2, size + 1):
        first = starts[: size - width + 1]
        sums = by_start[:, : len(first), 1:width] + by_stop[:, width:, width - 1 : 0 : -1]
        best = sums.argmax(-1)
        splits[:, first, first + width] = first + best + 1
        total = np.take_along_axis(sums, best[..., None], -1)[..., 0] + gain[:, first, first + width]
        by_start[:, : len(first), width] = by_stop[:, width:, width] = total
    return splits


def best_spans(scores: NDArray[np.floating]) -> list[list[tuple[int, int]]]:
    """The constituents of the best tree of each sentence, the whole sentence always among them.

    Args:
        scores: as in `best_splits`.

    Returns:
        Spans (start, stop) of each sentence, a parent before its children.
    """
    size = scores.shape[1]
    out = []
    for split, kept in zip(best_splits(scores).tolist(), (scores > 0).tolist(), strict=True):
        spans, todo = [], [(0, size)]
        while todo:
            start, stop = todo.pop()
            if kept[start][stop] or stop - start == size:
                spans.append((start, stop))
            if stop - start > 1:
                middle = split[start][stop]
                todo += [(middle, stop), (start, middle)]
        out.append(spans)
    return out
