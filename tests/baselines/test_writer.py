"""A baseline or a foreign method in the model's place: the same targets, the same scores."""

import torch

from diffusion_lm.baselines.fine_tuned import FineTuned, PromptedConfig, PromptedLM
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeConfig, JudgeLM


def config(tmp_path, **values):
    torch.manual_seed(0)
    tokenizer = DiffusionLM.from_pretrained("e2e-small", "cpu").tokenizer
    shape = JudgeConfig(tokenizer.vocab_size, width=16, layers=1, heads=2, max_length=60)
    JudgeLM(shape, tokenizer).save_pretrained(tmp_path / "judge")
    PromptedLM(PromptedConfig("length", ["", "end"], shape), tokenizer).save_pretrained(tmp_path / "ft")
    return EvaluateConfig(
        judge=str(tmp_path / "judge"),
        tasks=["length"],
        lengths=(5, 6),
        n=4,
        samples_per_target=3,
        out=str(tmp_path / "out"),
        **values,
    )


class Copyist(Writer):
    """As many times the same word as are wanted."""

    name, settings = "copyist", {"version": "1"}

    def write(self, target, n, seed):
        return Written([" ".join(["pub"] * target)] * n)


def test_a_foreign_method_is_scored_as_the_model_is(tmp_path):
    row = evaluate(config(tmp_path), writer=Copyist())[-1]
    assert (row.name, row.success, row.n) == ("copyist: length (2 targets x 3)", 1.0, 6)


def test_a_fine_tuned_model_samples_or_searches(tmp_path):
    row = evaluate(config(tmp_path, baseline=[str(tmp_path / "ft")]))[-1]
    assert row.name == "FT, sampled: length (2 targets x 3)" and row.n == 6
    assert FineTuned([tmp_path / "ft"]).write(5, 3, 1) == FineTuned([tmp_path / "ft"]).write(5, 3, 1)
    assert len(FineTuned([tmp_path / "ft"], beams=2).write(5, 3, 1).texts) == 1
