"""Going on from a model, and with given words, sources and more steps."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.training.trainer import Taken, Trainer, train


def rows(folder: Path, split: str) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def test_a_run_with_given_words_and_sources_learns_lengths_too(make_config) -> None:
    config = make_config("given", model_given=0.5, model_max_source=40, run_steps=6, run_validate_every=3)
    train(config)
    out = Path(config.run.out)
    assert {"words", "length"} <= rows(out, "train")[0].keys()
    assert {"words", "length", "bound", "source_loss", "source_length", "source_bound"} <= rows(out, "dev")[0].keys()
    lm = DiffusionLM.from_pretrained(out, "cpu")
    assert "food" in lm.fields and lm.denoiser.knows_given


def test_a_run_with_given_words_that_was_stopped_continues_bit_for_bit(make_config, monkeypatch) -> None:
    settings = {"model_given": 0.5, "model_max_source": 40, "run_steps": 6}
    whole, stopped = make_config("whole", **settings), make_config("stopped", **settings)
    train(whole)
    step = Trainer._train_step

    def signalled(self: Trainer, batch: torch.Tensor) -> Taken:
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="SIGTERM after step 3"):
        patch.setattr(Trainer, "_train_step", signalled)
        train(stopped)
    train(stopped)
    one, two = (Path(each.run.out, "model", "model.safetensors").read_bytes() for each in (whole, stopped))
    assert one == two


def test_a_run_that_has_ended_goes_on_with_more_steps(make_config) -> None:
    train(make_config("run", run_steps=4))
    train(make_config("run", run_steps=7))
    assert [row["step"] for row in rows(Path(make_config("run").run.out), "train")] == list(range(1, 8))
    with pytest.raises(UserError, match=r"run\.steps \(7 there, 5 here\)"):
        train(make_config("run", run_steps=5))


def test_going_on_from_a_model_keeps_its_words_and_starts_from_its_weights(make_config) -> None:
    train(make_config("old", run_steps=3))
    old = DiffusionLM.from_pretrained(make_config("old").run.out, "cpu")
    config = make_config("new", run_init=make_config("old").run.out, run_steps=1, model_given=0.5, model_max_source=40)
    train(config)
    new = DiffusionLM.from_pretrained(config.run.out, "cpu")
    size = old.tokenizer.vocab_size
    assert [new.tokenizer.token(i) for i in range(size)] == [old.tokenizer.token(i) for i in range(size)]
    assert new.tokenizer.vocab_size > size and "=" in [
        new.tokenizer.token(i) for i in range(size, new.tokenizer.vocab_size)
    ]
    before, after = old.denoiser.embedding.weight, new.denoiser.embedding.weight[:size]
    assert torch.allclose(before, after, atol=0.05) and not torch.equal(before, after)


def test_the_shape_of_the_model_stays(make_config) -> None:
    train(make_config("old", run_steps=1))
    out = make_config("old").run.out
    with pytest.raises(UserError, match=r"has embedding_dim 8.*leave --model\.embedding_dim 4 out"):
        train(make_config("new", run_init=out, model_embedding_dim=4))
    with pytest.raises(UserError, match="no model"):
        train(make_config("new", run_init="nothing"))


def test_vectors_that_stay_keep_what_was_made_of_them(make_config, data) -> None:
    train(make_config("old", run_steps=3, tokenizer_min_count=1000))
    old = Path(make_config("old").run.out, "model")
    (old / "controls" / "attribute").mkdir(parents=True)
    (old / "controls" / "attribute" / "config.json").write_text("{}")
    config = make_config("new", run_init=str(old), run_steps=2, run_freeze_embeddings=True)
    train(config)
    one, two = (DiffusionLM.from_pretrained(folder, "cpu") for folder in (old, config.run.out))
    assert one.fingerprint == two.fingerprint and not torch.equal(
        one.denoiser.head.out.weight, two.denoiser.head.out.weight
    )
    assert two.tokenizer.vocab_size < data.tokenizer.vocab_size  # words that it would not learn are not added
    assert (Path(config.run.out) / "model" / "controls" / "attribute" / "config.json").read_text() == "{}"
    with pytest.raises(UserError, match=r"name it by --run\.init"):
        make_config("bad", run_freeze_embeddings=True)


def test_a_student_moves_to_its_teacher_and_keeps_its_vectors(make_config) -> None:
    train(make_config("old", run_steps=200))
    old = str(Path(make_config("old").run.out, "model"))
    config = make_config("new", run_init=old, run_freeze_embeddings=True, run_teacher=old, run_steps=100)
    train(config)
    losses = [record["words"] for record in rows(Path(config.run.out), "train")]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    one, two = (DiffusionLM.from_pretrained(folder, "cpu") for folder in (old, config.run.out))
    assert one.fingerprint == two.fingerprint


def test_the_model_that_is_written_keeps_a_share_of_the_first(make_config) -> None:
    train(make_config("old", run_steps=2))
    old = str(Path(make_config("old").run.out, "model"))
    settings = {"run_init": old, "run_freeze_embeddings": True, "run_steps": 4}
    whole, mean = make_config("whole", **settings), make_config("mean", **settings, run_init_share=0.25)
    train(whole)
    train(mean)
    first, far, near = (
        DiffusionLM.from_pretrained(folder, "cpu").denoiser.state_dict()
        for folder in (old, whole.run.out, mean.run.out)
    )
    assert any(not torch.equal(far[name], first[name]) for name in first)
    for name in first:
        torch.testing.assert_close(near[name], far[name].lerp(first[name], 0.25))
    with pytest.raises(UserError, match=r"name it by --run\.init"):
        make_config("bad", run_init_share=0.5)


def test_who_cannot_teach_is_refused(make_config) -> None:
    train(make_config("old", run_steps=1))
    train(make_config("alone", run_steps=1, model_self_conditioning=False))
    old, alone = (make_config(name).run.out for name in ("old", "alone"))
    with pytest.raises(UserError, match="has nothing to teach"):
        train(make_config("new", run_init=alone, run_freeze_embeddings=True, run_teacher=alone))
    with pytest.raises(UserError, match=r"give --run\.init .* and --run\.freeze_embeddings true"):
        train(make_config("new", run_teacher=old, run_seed=1))
