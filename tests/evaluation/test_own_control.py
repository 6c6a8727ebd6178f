"""A control that is defined here is a task of an evaluation, and its texts stand in the frame."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.cli import main
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import CONTROLS, Control, Target
from diffusion_lm.control.program import Host, Program
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.scores import read_run, read_texts, scores_by_target
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.text.fields import Document


@pytest.fixture
def shout() -> Iterator[type[Control]]:
    @dataclass(frozen=True)
    class Shout(Control, name="shout"):
        """The last word is a mark, again and again."""

        help = "How many of its marks the sentence has at its end."
        example = '{"shout": "!!!"}'
        marks: str

        def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
            columns = torch.zeros(host.tokenizer.vocab_size)
            columns[host.tokenizer.encode("Thai")] = 5.0
            return [Program(canvas, (columns,)) for canvas in canvases]

        def success(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([float("Thai" in text) for text in texts])

        def __str__(self) -> str:
            return f"shout={self.marks}"

        @classmethod
        def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:
            return ["!" * len(labels.words)]

    yield Shout
    del CONTROLS["shout"]


def test_it_is_a_task_and_its_texts_stand_in_the_frame(
    shout: type[Control], config: EvaluateConfig, tmp_path: Path
) -> None:
    path = tmp_path / "shout.jsonl"
    path.write_text('{"shout": "!", "length": 4}\n{"shout": "!!", "length": 5}\n')
    files = {"shout": str(path), "shout+length": str(path)}
    rows = evaluate(replace(config, tasks=["shout", "shout+length"], targets=files))
    assert list(rows["task"][3:]) == ["shout", "shout+length"] and rows["success_paper"][3] is None
    frame = read_texts(config.out)
    assert list(scores_by_target(frame)["target"][3:]) == ["1: !", "2: !!", "1: ! & 4", "2: !! & 5"]
    assert rows["success"][3] == pytest.approx(frame.loc[frame["task"] == "shout", "success"].mean())
    assert rows["parts"][4]["length"] == 1 and set(read_run(config.out)["decoding"]) == {"shout", "shout+length"}
    record = shout.draw(Document("A pub."), Annotation(["A", "pub", "."], ["X"] * 3, "(X _)"), random.Random(0))
    assert record == {"shout": "!!!"} and shout.target(record, 1) == Target("!!!", 1)


def test_the_command_line_asks_for_it(
    shout: type[Control], config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "shout.jsonl"
    path.write_text('{"shout": "!"}\n')
    flags = f"--model {config.model} --judge {config.judge} --corpus.source {config.corpus.source} --n 4 --device cpu"
    words = f"{flags} --steps 3 --samples_per_target 2 --tasks shout --targets.shout {path} --out {config.out}"
    assert main(["evaluate", *words.split()]) == 0
    shown = capsys.readouterr().out
    assert "shout" in shown and "nats/token" in shown and "judged by" in shown


def test_the_report_has_a_column_for_it(shout: type[Control], config: EvaluateConfig, tmp_path: Path) -> None:
    path = tmp_path / "shout.jsonl"
    path.write_text('{"shout": "!", "length": 4}\n{"shout": "!!", "length": 5}\n')
    tasks = ["unconditional", "shout", "shout+length"]
    files = {"shout": str(path), "shout+length": str(path)}
    rows = evaluate(replace(config, tasks=tasks, targets=files, label="ours")).set_index("task")
    assert main(["report", config.out, "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    lines = text.split("\n")
    alone, together = (line for line in lines if line.startswith("| task | system | "))
    assert "| shout % |" not in alone and "| shout % | shout: 95 % |" in together
    assert f"| shout | ours | {rows['nats']['shout']:.3f} |" in text and "**ours, shout**" in text
    heads = [line for line in lines if line.startswith("| system | ")]
    assert heads[0].endswith("| length | shout |") and heads[1].endswith(
        "| shout+length: shout | shout+length: length |"
    )
    assert text.count("| human (dev), as written |") == 1


class Copyist(Writer):
    """As many times the same word as are wanted."""

    name, settings = "copyist", {"version": "1"}

    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:
        return Written([" ".join(["pub"] * int(asked["length"].value))] * n, 7)


def test_a_foreign_method_is_scored_as_the_model_is(config: EvaluateConfig) -> None:
    row = evaluate(replace(config, tasks=["length"]), writer=Copyist()).iloc[-1]
    assert (row["system"], row["name"], row["success"]) == ("copyist", "length (3 targets x 3)", 1.0)
    assert row["passes"] == 7 and read_run(config.out)["decoding"] == {}
