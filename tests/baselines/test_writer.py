"""A baseline or a foreign method in the model's place: the same targets, the same scores."""

import torch

from diffusion_lm.baselines.common import open_baseline
from diffusion_lm.baselines.fine_tuned import PromptedConfig, PromptedLM
from diffusion_lm.control.control import Target
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeConfig, JudgeLM


def config(tmp_path):
    torch.manual_seed(0)
    tokenizer = DiffusionLM.from_pretrained("e2e-small", "cpu").tokenizer
    shape = JudgeConfig(tokenizer.vocab_size, width=16, layers=1, heads=2, max_length=60)
    JudgeLM(shape, tokenizer).save_pretrained(tmp_path / "judge")
    PromptedLM(PromptedConfig("length", ["", "end"], shape), tokenizer).save_pretrained(tmp_path / "ft")
    (tmp_path / "lengths.jsonl").write_text('{"length": 5}\n{"length": 6}\n', encoding="utf-8")
    return EvaluateConfig(
        judge=str(tmp_path / "judge"),
        tasks=["length"],
        targets={"length": str(tmp_path / "lengths.jsonl")},
        n=4,
        samples_per_target=3,
        out=str(tmp_path / "out"),
    )


def row_of(table, who):
    """The system, its success and how many texts it wrote."""
    (row,) = table[table["system"] == who].to_dict("records")
    return row["task"], row["success"], row["n"]


class Copyist(Writer):
    """As many times the same word as are wanted."""

    name, settings = "copyist", {"version": "1"}

    def write(self, asked, n, seed):
        return Written([" ".join(["pub"] * int(asked["length"].value))] * n)


def test_a_foreign_method_is_scored_as_the_model_is(tmp_path):
    assert row_of(evaluate(config(tmp_path), writer=Copyist()), "copyist") == ("length", 1.0, 6)


def test_a_fine_tuned_model_samples_or_searches(tmp_path):
    found = config(tmp_path)
    sampled, searched = (open_baseline([tmp_path / "ft"], beams) for beams in (None, 2))
    task, _, n = row_of(evaluate(found, writer=sampled), "FT, sampled")
    assert (task, n) == ("length", 6)
    asked = {"length": Target("5")}
    assert sampled.write(asked, 3, 1) == sampled.write(asked, 3, 1)
    assert len(searched.write(asked, 3, 1).texts) == 1
