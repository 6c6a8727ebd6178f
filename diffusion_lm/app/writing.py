"""A request while it is written: what each step shows, and what there is at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event

from diffusion_lm.annotate.parser import parser
from diffusion_lm.app import board
from diffusion_lm.app.drawing import svg_of
from diffusion_lm.app.request import Request
from diffusion_lm.common import UserError
from diffusion_lm.control.tree import parsed
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Generation, Step
from diffusion_lm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

WRITER = ThreadPoolExecutor(1, "writer")
"""One request at a time, and always the same thread: memory that each thread keeps for itself would grow with their number."""
MOVING = "Words in grey still change."
FAILED = "Something went wrong, and what it was is in the server's log; please ask for something else."


@dataclass(frozen=True)
class Moment:
    """The sentences at one step, as words stand then."""

    index: int
    steps: int
    t: float
    texts: list[str]

    def shown(self, other: list[str]) -> str:
        """The table of this step, what differs from other texts in grey."""
        rows = [board.settling(text, there) for text, there in zip(self.texts, other, strict=True)]
        return board.table(rows, caption=f"Step {self.index + 1} of {self.steps}, noise t = {self.t:.2f}. {MOVING}")


@dataclass(frozen=True)
class Result:
    """What there is at the end, as HTML."""

    texts: list[str]
    frames: list[str]
    """The table at each step; the last one is the result with its verdicts."""
    trees: list[str]
    """The parse tree of each sentence."""


class _GivenUp(Exception):
    """Nobody waits for the sentences any more."""


def write(lm: DiffusionLM, request: Request, seconds: float) -> Iterator[str | Result]:
    """The table at each step as it comes, then the result.

    A model that is slower than whoever reads is not held up: steps that nobody has seen yet are skipped.

    Raises:
        UserError: what is asked cannot be done, or not within so many seconds.
    """
    news: SimpleQueue[Moment | Result | UserError] = SimpleQueue()
    given_up = Event()
    work = WRITER.submit(_work, lm, request, seconds, news, given_up)
    before: list[str] = []
    try:
        while True:
            item = _latest(news)
            if isinstance(item, UserError):
                raise item
            if isinstance(item, Result):
                yield item
                return
            yield item.shown(before or [""] * len(item.texts))
            before = item.texts
    finally:
        given_up.set()
        wait([work])


def _latest(news: SimpleQueue[Moment | Result | UserError]) -> Moment | Result | UserError:
    item = news.get()
    while isinstance(item, Moment):
        try:
            item = news.get_nowait()
        except Empty:
            break
    return item


def _work(
    lm: DiffusionLM, request: Request, seconds: float, news: SimpleQueue[Moment | Result | UserError], given_up: Event
) -> None:
    moments: list[Moment] = []
    until = time.monotonic() + seconds

    def look(moment: Moment) -> None:
        if given_up.is_set():
            raise _GivenUp
        if time.monotonic() > until:
            raise UserError(f"This took more than {seconds:g} seconds; ask for fewer sentences, steps or controls.")
        moments.append(moment)
        news.put(moment)

    try:
        control = request.control()
        watch = _watch(lm.tokenizer, look)
        generation = lm.generate(request.n, control, **request.decoding(), seed=request.settings.seed, callback=watch)
        verdicts = board.verdicts_of(control, generation.texts)
        news.put(_result(generation, verdicts, moments))
    except _GivenUp:
        pass
    except UserError as error:
        news.put(error)
    except Exception:  # a visitor gets a sentence and the log what it was; the page stays up
        logger.exception("A request failed: %s", request)
        news.put(UserError(FAILED))


def _watch(tokenizer: Tokenizer, look: Callable[[Moment], None]) -> Callable[[Step], None]:
    def watch(step: Step) -> None:
        texts = [tokenizer.decode_unfinished(ids) for ids in step.ids.tolist()]
        ordered = [text for _, text in sorted(zip(step.rows, texts, strict=True))]
        look(Moment(step.index, step.steps, step.t, ordered))

    return watch


def _result(generation: Generation, verdicts: list[list[board.Verdict]], moments: list[Moment]) -> Result:
    texts = list(generation.texts)
    count = f"{len(texts)} sentences" if len(texts) > 1 else "One sentence"
    steps = f"{generation.decoding.steps} steps, {generation.network_evaluations} network passes"
    caption = f"{count} in {generation.seconds:.1f} s: {steps}, seed {generation.seed}."
    rows = [board.settling(text, text) for text in texts]
    frames = [moment.shown(texts) for moment in moments[:-1]] + [board.table(rows, verdicts, caption=caption)]
    trees = ["" if tree is None else svg_of(tree) for tree in parsed(parser(), texts)]
    return Result(texts, frames, trees)
