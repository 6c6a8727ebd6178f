"""What pretrained models that never read the corpus say of an evaluation's texts, added to its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, final

from torch import Tensor

from diffusion_lm.evaluation.mauve import mauve
from diffusion_lm.evaluation.outside import outside_fluency
from diffusion_lm.evaluation.rows import EvaluationRow, some_of
from diffusion_lm.evaluation.systems import Human, reservoir

if TYPE_CHECKING:
    from diffusion_lm.evaluation.encoder import SentenceEncoder
    from diffusion_lm.evaluation.outside import OutsideJudge
    from diffusion_lm.text.corpus import Corpus


@final
class OutsideRows:
    """Fluency under the outside judge of every row, and MAUVE of the rows of free text.

    A corpus's dev split may differ from its training split in what is talked about, as E2E's does in the names of restaurants,
    and a model can only be like what it has read. So MAUVE is taken against both.

    Args:
        corpus: where human text comes from.
        human: texts of the dev split that rows are compared with.
        judge: of fluency.
        encoder: of the features of MAUVE.
        n: the most texts of a row whose fluency is measured.
        seed: of the choice of texts and of k-means.
    """

    def __init__(
        self,
        corpus: Corpus,
        human: Sequence[str],
        judge: OutsideJudge,
        encoder: SentenceEncoder,
        n: int,
        seed: int,
    ) -> None:
        self.judge, self.encoder, self.n, self.seed = judge, encoder, n, seed
        known = set(human)
        dev = (document.text for document in corpus.documents("dev") if document.text not in known)
        others = reservoir(dev, len(human), seed)
        train = reservoir((document.text for document in corpus.documents("train")), 2 * len(human), seed)
        self.human = encoder.sentences(human)
        # Of fewer texts MAUVE would be lower for that alone.
        self.others = encoder.sentences(others) if len(others) == len(human) else None
        self.train, self.more_train = encoder.sentences(train).tensor_split(2)

    def rows(self, rows: Sequence[EvaluationRow], texts: Mapping[str, Sequence[str]]) -> list[EvaluationRow]:
        """The same rows, with the outside figures of those whose texts are given by the row's task."""
        return [self._measured(row, texts[row.task]) if row.task in texts else row for row in rows]

    def _measured(self, row: EvaluationRow, texts: Sequence[str]) -> EvaluationRow:
        chosen = [text for text in some_of(texts, self.n, self.seed) if text.strip()]
        if chosen:
            nats = outside_fluency(self.judge, chosen).nats_per_token
            row = replace(row, outside_nats=nats, outside_n=len(chosen))
        if row.success is not None:
            return row
        human = row.task == Human.name
        features = self.human if human else self.encoder.sentences(texts)
        return replace(
            row,
            mauve=self._mauve(features, self.others if human else self.human),
            mauve_train=self._mauve(features, self.train),
        )

    def _mauve(self, features: Tensor, others: Tensor | None) -> float | None:
        return None if others is None else mauve(features, others, self.seed)

    def remark(self) -> str:
        """What to hold the figures of MAUVE against."""
        ceiling = mauve(self.train, self.more_train, self.seed)
        return (
            "MAUVE is on MiniLM's features, not the paper's: read it beside human text. Against dev the human row's own figure, "
            "which is of other dev texts, is the ceiling; against train it is "
            f"{ceiling:.3f}, of other training texts. Outside nats are of at most {self.n:,} texts a row, a token of SmolLM2's."
        )
