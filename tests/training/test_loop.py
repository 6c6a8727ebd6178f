from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
import torch

from diffusion_lm import store
from diffusion_lm.common import UserError
from diffusion_lm.diffusion import losses
from diffusion_lm.diffusion.times import Times
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.training.lm import RunConfig


def records(config, split):
    lines = map(json.loads, Path(config.run.out, "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["split"] == split]


def weights(config):
    return DiffusionLM.from_pretrained(config.run.out).denoiser.state_dict()


def fixed_noise(monkeypatch, trainer):
    """Take all chance out of a step: one t, no eps."""
    monkeypatch.setattr(losses.torch, "randn_like", torch.zeros_like)
    trainer.times.sample = lambda n, device: Times(torch.full((n,), 0.5), torch.ones(n))


def gradients(trainer):
    return {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}


# -- what a run leaves ---------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_folder_holds_a_model(make_config, make_trainer):
    config = make_config(run_steps=60, optimizer_lr=1e-2)
    trainer = make_trainer(config)
    trainer.fit()
    curve = [record["words"] for record in records(config, "train")]
    assert sum(curve[-10:]) < 0.8 * sum(curve[:10])
    saved = weights(config)
    assert all(torch.equal(saved[name], value) for name, value in trainer.ema.state().items())
    assert len(DiffusionLM.from_pretrained(config.run.out).generate(2, steps=2)) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"model_layout": "padded", "model_objective": "vlb", "run_time_sampling": "importance"},
        {"model_layout": "padded", "model_objective": "simple", "model_embeddings": "random", "optimizer_clip": 0.0},
        {"model_objective": "simple", "model_prediction": "eps", "run_batch_sentences": 8},
        {"model_self_conditioning": False, "run_precision": "bf16"},
    ],
)
def test_every_objective_and_layout_trains(make_config, make_trainer, settings):
    config = make_config(run_steps=2, **settings)
    trainer = make_trainer(config)
    trainer.fit()
    (dev,) = records(config, "dev")
    assert math.isfinite(dev["loss"]) and math.isfinite(dev["bound"])
    if config.model.layout == "padded":
        assert trainer.tokens == 2 * (config.run.batch_tokens // 24) * 24  # padding counts


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make_config, make_trainer, saved_tensors):
    runs = [make_config(out, run_steps=2, run_seed=seed) for out, seed in (("a", 1), ("b", 1), ("c", 2))]
    for config in runs:
        torch.manual_seed(len(config.run.out))  # what happened before does not matter
        make_trainer(config).fit()
    a, b, c = (saved_tensors(config, 2) for config in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model/embedding.weight"], c["model/embedding.weight"])


def test_metrics_are_written_when_they_are_due(make_config, make_trainer):
    config = make_config(run_steps=7, run_log_every=2, run_validate_every=3)
    make_trainer(config).fit()
    assert [record["step"] for record in records(config, "train")] == [2, 4, 6]
    assert [record["step"] for record in records(config, "dev")] == [3, 6, 7]
    assert {"words", "gradient_norm", "lr", "tokens", "time"} <= records(config, "train")[0].keys()


def test_samples_come_from_the_averaged_weights(make_config, make_trainer):
    trainer = make_trainer(make_config(run_steps=5, run_sample_every=2, optimizer_lr=0.1))
    seen, average, live = [], {}, {}

    def on_sample(step, lm):
        assert not lm.denoiser.training and not torch.is_grad_enabled()
        assert all(torch.equal(p, average[n]) for n, p in lm.denoiser.named_parameters())
        seen.append(step)

    take = trainer._train_step

    def remember(batch):
        report = take(batch)
        average.update({name: value.clone() for name, value in trainer.ema.state().items()})
        live.update({name: value.clone() for name, value in trainer.network.named_parameters()})
        return report

    trainer._train_step = remember
    trainer.fit(on_sample)
    assert seen == [2, 4, 5]
    assert trainer.network.training
    assert all(torch.equal(value, live[name]) for name, value in trainer.network.named_parameters())


# -- what ends a run -----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(make_config, make_trainer, saved_tensors):
    config = make_config(run_checkpoint_minutes=0.0)
    trainer = make_trainer(config)
    objective = trainer.loss.objective

    def explodes(*arguments):
        terms = objective(*arguments)
        return {"words": terms["words"] * (math.inf if trainer.step == 3 else 1.0)}

    trainer.loss.objective = explodes
    with pytest.raises(UserError, match=r"stopped at step 4: words and gradient norm not finite"):
        trainer.fit()
    assert all(value.isfinite().all() for value in saved_tensors(config, 3).values())
    assert all(value.isfinite().all() for value in weights(config).values())
    assert all(p.isfinite().all() for p in trainer.network.parameters())
    assert make_trainer(config).step == 3


def test_what_steps_have_given_is_read_when_it_is_due(make_config, make_trainer, monkeypatch):
    """On an accelerator; with the same records, and the step named that was the first to fail."""
    config = make_config(run_steps=5, run_log_every=3)
    trainer, read = make_trainer(config), []
    monkeypatch.setattr(trainer, "_due", lambda: trainer.step % 3 == 0)
    monkeypatch.setattr(trainer, "_read", lambda taken, old=trainer._read: read.append(len(taken)) or old(taken))
    trainer.fit()
    each = make_trainer(make_config("each", run_steps=5, run_log_every=3))
    each.fit()
    assert read == [3, 2] and trainer.tokens == each.tokens
    assert records(config, "train")[0]["words"] == records(each.config, "train")[0]["words"]

    late = make_trainer(make_config("late", run_steps=5))
    objective = late.loss.objective
    late.loss.objective = lambda *arguments: {"words": objective(*arguments)["words"] / (late.step != 1)}
    monkeypatch.setattr(late, "_due", lambda: False)
    with pytest.raises(UserError, match="stopped at step 2: words and gradient norm not finite"):
        late.fit()


def test_ruined_weights_are_not_saved(make_config, make_trainer):
    config = make_config(run_steps=2)
    make_trainer(config).fit()
    trainer = make_trainer(config)
    with torch.no_grad():
        trainer.network.head.out.bias[0] = math.nan
    with pytest.raises(UserError, match=r"stopped at step 2: head.out.bias not finite"):
        trainer.save()
    assert all(value.isfinite().all() for value in weights(config).values())


def test_a_full_disk_ends_in_one_sentence_and_a_usable_checkpoint(make_config, make_trainer, monkeypatch):
    config = make_config(run_checkpoint_minutes=0.0)
    trainer = make_trainer(config)
    save = store.save_file

    def until_full(tensors, path, metadata):
        if trainer.step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(store, "save_file", until_full)
    with pytest.raises(UserError, match=r"The disk is full .* start the same command again"):
        trainer.fit()
    folder = Path(config.run.out, "checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000001", "step-00000002"]
    assert make_trainer(config).step == 2
    assert weights(config)


def test_a_full_disk_under_the_metrics_is_the_same_sentence(make_config, make_trainer, monkeypatch):
    def full(*arguments, **values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with pytest.raises(UserError, match="disk is full"):
        make_trainer(make_config()).fit()


# -- the step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 10])
def test_accumulation_gives_the_gradient_of_the_whole_batch(make_config, make_trainer, monkeypatch, parts):
    """Also where the parts are not of one size, and where there are fewer sentences than parts."""
    found = []
    for accumulate in (1, parts):
        config = make_config(str(accumulate), run_accumulate=accumulate, model_self_conditioning=False)
        trainer = make_trainer(config)
        fixed_noise(monkeypatch, trainer)
        terms, tokens = trainer._backward(torch.arange(8))
        found.append((gradients(trainer), terms, tokens))
    (whole, terms, tokens), (split, split_terms, split_tokens) = found
    assert split_tokens == tokens
    assert float(split_terms["words"]) == pytest.approx(float(terms["words"]), rel=1e-5)
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_after_its_norm_is_taken(make_config, make_trainer):
    for clip in (1e-3, 0.0):
        trainer = make_trainer(make_config(str(clip), optimizer_clip=clip))
        seen: list[float] = []
        observe_norm(trainer, seen)
        norm = float(trainer._train_step(torch.arange(8)).norm)
        expected = clip if clip else norm
        assert norm > 1e-2
        assert seen[0] == pytest.approx(expected, rel=1e-3)


def observe_norm(trainer, seen):
    step = trainer.optimizers[0].step

    def observed():
        seen.append(math.sqrt(sum(float(g.square().sum()) for g in gradients(trainer).values())))
        step()

    trainer.optimizers[0].step = observed


# -- precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bf16_where_the_hardware_has_it(monkeypatch, native):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert RunConfig(device="cpu").mixed_precision == ("bf16" if native else "no")
    assert RunConfig(device="cpu", precision="no").mixed_precision == "no"
    assert RunConfig(device="cpu", precision="bf16").mixed_precision == "bf16"


def test_auto_is_fp32_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert RunConfig(device="cpu").mixed_precision == "no"


def test_auto_asks_the_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert RunConfig().mixed_precision == ("bf16" if supported else "no")
