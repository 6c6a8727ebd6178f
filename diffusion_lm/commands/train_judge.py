"""`diffusion-lm train-judge`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from diffusion_lm.commands.configs import TrainJudgeConfig
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.sentence_targets import SENTENCE_EXAMPLE, read_records, sentence_of
from diffusion_lm.evaluation.without import Without
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.encoded import encode_corpus
from diffusion_lm.training.data import build_tokenizer
from diffusion_lm.training.judge import JudgeProgress, train_judge
from diffusion_lm.training.settings import save_settings


def run(config: TrainJudgeConfig) -> None:
    """Train a judge; `judge.out`/run.yaml says with what."""
    if config.judge.out is None:
        raise UserError("The judge has to be kept; give --judge.out a folder.")
    out = Path(config.judge.out)
    held_out = [] if config.hold_out is None else read_records(config.hold_out, sentence_of, SENTENCE_EXAMPLE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_settings(out, config)
    except OSError as error:
        raise UserError(f"--judge.out {out} cannot be written to ({error.strerror}); give another.") from None
    corpus = Without(open_corpus(config.corpus), held_out)
    tokenizer = build_tokenizer(corpus, config.tokenizer)
    longest, cache = config.judge.max_length, out / "cache"
    train, dev = (encode_corpus(corpus, split, tokenizer, longest, cache) for split in ("train", "dev"))
    console = Console(highlight=False, soft_wrap=True)
    train_judge(train, dev, tokenizer, config.judge, lambda report: console.print(_line(report)))
    console.print(f"The judge is in {out}.")


def _line(report: JudgeProgress) -> str:
    return (
        f"epoch {report.epoch}: {report.dev_nats:.4f} nats a token on dev (best {report.best_nats:.4f}), "
        f"{report.train_nats:.4f} on train; {report.fraction:.0%} done after {report.seconds:,.0f} s"
    )
