"""Let systems write what is still missing of their texts, and score it; several processes share the targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diffusion_lm.evaluation.fingerprint import settings_hash
from diffusion_lm.evaluation.results import Results, Sample
from diffusion_lm.evaluation.systems import System, target_seed

if TYPE_CHECKING:
    from accelerate import PartialState
    from rich.console import Console

    from diffusion_lm.evaluation.judge import JudgeLM


def write_missing(
    system: System,
    results: Results,
    judge: JudgeLM,
    seed: int,
    console: Console | None,
    processes: PartialState,
) -> None:
    """Write the texts of this process's share of the targets that are not in the results yet.

    The seed of a target does not depend on who writes it, so any number of processes writes the same texts.
    """
    done, config = collected(system, results), _hash(system, results)
    share = [target for target in system.targets if target not in done]
    share = share[processes.process_index :: processes.num_processes]
    with _Progress(console, system.label, system.work * len(share)) as tick:
        for target in share:
            seed_here = target_seed(seed, system.name, target)
            results.add(_write(system, target, judge, seed_here, config, tick))


def collected(system: System, results: Results) -> dict[str, list[Sample]]:
    """The samples of every target of a system that is in the results whole."""
    config = _hash(system, results)
    found = {target: results.get(system.name, target, system.samples, config) for target in system.targets}
    return {target: samples for target, samples in found.items() if samples is not None}


def _hash(system: System, results: Results) -> str:
    return f"{results.config}-{settings_hash(system.settings)}" if system.settings else results.config


def _write(
    system: System, target: str, judge: JudgeLM, seed: int, config: str, tick: Callable[[], None]
) -> list[Sample]:
    """Let a system write, and score what it wrote."""
    written = system.write(target, seed, tick)
    nats, tokens = judge.score([judge.tokenizer.encode_sentence(text) for text in written.texts])
    return [
        Sample(
            task=system.name,
            target=target,
            index=i,
            text=text,
            success=None if written.success is None else written.success[i],
            parts={name: values[i] for name, values in written.parts.items()},
            paper={name: values[i] for name, values in written.paper.items()},
            nats=float(nats[i]),
            tokens=int(tokens[i]),
            seed=seed,
            seconds=None if written.seconds is None else written.seconds / len(written.texts),
            network_evaluations=written.network_evaluations,
            config=config,
        )
        for i, text in enumerate(written.texts)
    ]


class _Progress:
    """A bar on a terminal; its `tick` is called once a step of a batch."""

    def __init__(self, console: Console | None, label: str, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeRemainingColumn(),
        )
        hidden = console is None or not console.is_terminal or total == 0
        self.bar = Progress(*columns, console=console, transient=True, disable=hidden)
        self.task = self.bar.add_task(label, total=total)

    def __enter__(self) -> Callable[[], None]:
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
