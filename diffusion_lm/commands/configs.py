"""The flags of the commands whose config belongs to no other part of the package.

Nothing heavy may be imported here, under TYPE_CHECKING neither: jsonargparse imports that too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.commands.parser import ALONE
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.sampling_config import SamplingConfig
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.training.config import TokenizerConfig
from diffusion_lm.training.judge_config import JudgeTrainConfig


@dataclass(frozen=True)
class GenerateConfig(SamplingConfig):
    """What to write, and how."""

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model or of its training run, or hub id."""
    n: int = 8
    """Number of sentences."""
    length: int | None = None
    """Words of each sentence, punctuation marks included; drawn as in the corpus if not given."""
    attribute: list[str] = field(default_factory=list)
    """What each sentence says, FIELD=VALUE like food=Japanese; may be repeated. info lists what there is."""
    keyword: list[str] = field(default_factory=list)
    """A word or phrase that each sentence says; may be repeated."""
    avoid: list[str] = field(default_factory=list)
    """A word or phrase that no sentence says; may be repeated."""
    regex: str | None = None
    """What the whole sentence matches, word by word: "The .* is (cheap|moderate) ." with a backslash before a full stop."""
    pos: str | None = None
    """A universal part of speech for every word, punctuation marks included: "PROPN AUX DET ADJ NOUN PUNCT"."""
    tree: str | None = None
    """The constituency tree of each sentence in brackets, "(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ _))) (. .))": _ is
    any word, a word is that word."""
    span: list[str] = field(default_factory=list)
    """Words that are a constituent, FIRST:LAST:LABEL counted from 1, like 5:8:PP; may be repeated."""
    infill: str | None = None
    """A sentence with blanks, "The Punter ___ riverside.": ___ is any number of words, ___{3} is three."""
    trace: int | None = field(default=None, metadata={ALONE: "10"})
    """Show the first sentence at so many steps while it crystallises; 10 if no number follows."""
    json: bool = False
    """Write one JSON object a line, and nothing else, to standard output."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        super().__post_init__()
        for name in ("n", "trace"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class TrainJudgeConfig:
    """What a judge learns, and how."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes the judge's tokens; it has a tokenizer of its own."""
    judge: JudgeTrainConfig = field(default_factory=lambda: JudgeTrainConfig(out="runs/judge"))
    """How large it is, how long it learns, and where it goes."""
    hold_out: str | None = None
    """File of targets whose sentences (`words_`) the judge does not read, so that they can be judged as unread text is."""


@dataclass(frozen=True)
class InfoConfig:
    """Which model to look at."""

    model: str
    """Name of a bundled model, folder of a model or of its training run, or hub id."""
