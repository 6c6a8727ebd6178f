"""Baselines by name: a folder says which it holds, and a new one is one class."""

import dataclasses
from dataclasses import dataclass

import pytest

from diffusion_lm.baselines.common import (
    BASELINES,
    Baseline,
    BaselineLM,
    BaselineTrainConfig,
    LabelledTrainConfig,
    Lesson,
    open_baseline,
    sentences,
)
from diffusion_lm.baselines.fine_tuned import FineTuneConfig, FineTuned, PromptedConfig, PromptedLM
from diffusion_lm.baselines.fudge import Discriminator, DiscriminatorConfig, Fudge
from diffusion_lm.baselines.pplm import Ascent, AttributeLM, AttributeLMConfig, Pplm
from diffusion_lm.cli import choose
from diffusion_lm.common import UserError
from diffusion_lm.control.control import Target
from diffusion_lm.model.causal import JudgeConfig
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import padded


@pytest.fixture
def folders(judge, tmp_path):
    """Of two fine-tuned models, PPLM and FUDGE, by name."""
    models = {
        "pos": PromptedLM(PromptedConfig("pos", ["", "DET"], judge.config), judge.tokenizer),
        "attribute": PromptedLM(PromptedConfig("attribute", ["", "a=b"], judge.config), judge.tokenizer),
        "pplm": AttributeLM(AttributeLMConfig(judge.config, {"price": ["cheap"]}), judge.tokenizer),
        "fudge": Discriminator(
            DiscriminatorConfig(judge.config, {}, {"pos": [[]], "tree": [[]] * 3}, ["S"]), judge.tokenizer
        ),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    return {name: str(tmp_path / name) for name in models}


def test_a_folder_is_opened_as_what_it_says(folders):
    assert isinstance(open_baseline([folders["fudge"]]), Fudge)
    assert isinstance(open_baseline([folders["pplm"]]), Pplm)
    assert isinstance(open_baseline([folders["pos"]], beams=2), FineTuned)
    assert open_baseline([folders["pos"], folders["attribute"]]).name == "FT-PoE, sampled"


def test_what_does_not_go_together_is_refused(folders, judge, tmp_path):
    with pytest.raises(UserError, match="several fine-tuned models"):
        open_baseline([folders["pos"], folders["fudge"]])
    for wrong, beams in (([folders["fudge"]], 4), ([folders["pplm"]] * 2, None)):
        with pytest.raises(UserError, match="Only fine-tuned models"):
            open_baseline(wrong, beams)
    judge.save_pretrained(tmp_path / "judge")
    (tmp_path / "fudge" / "model.safetensors").write_bytes(b"")
    for name in ("judge", "nowhere", "fudge"):
        with pytest.raises(UserError, match=name):
            open_baseline([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (BaselineTrainConfig, "epochs", 0),
        (BaselineTrainConfig, "minutes", -1),
        (BaselineTrainConfig, "batch_tokens", 0),
        (BaselineTrainConfig, "lr", float("nan")),
        (BaselineTrainConfig, "warmup", -1),
        (BaselineTrainConfig, "weight_decay", -0.1),
        (BaselineTrainConfig, "seed", -1),
        (FineTuneConfig, "task", "keyword"),
        (Ascent, "fusion", 1.5),
    ],
)
def test_what_cannot_be_meant_is_refused(kind, field, value):
    with pytest.raises(UserError, match=str(value)):
        kind(**{field: value})


def test_a_result_does_not_replace_a_file(learned, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="out is a file"):
        Pplm.train(Pplm.Config(judge=learned, out=str(tmp_path / "out")))


@dataclass(frozen=True)
class PlainConfig:
    lm: JudgeConfig


class Plain(BaselineLM):
    kind, Config = Kind("plain language model", "diffusion-lm train-baseline plain"), PlainConfig


def test_a_new_baseline_is_one_class(labelled, learned, tmp_path, monkeypatch):
    monkeypatch.setitem(BASELINES, "plain", Fudge)  # what follows is undone with it

    class Heedless(Baseline, name="plain"):
        about, name, passes = "read on, whatever is asked", "heedless", 1
        Config, Model = LabelledTrainConfig, Plain

        @classmethod
        def lesson(cls, config, judge):
            model, rows = (
                Plain(PlainConfig(judge.config), judge.tokenizer),
                [ids for *_, ids in sentences(config, judge)],
            )

            def loss(numbers):
                ids = padded([rows[i] for i in numbers], -1)
                return model.lm.nll(ids.clamp(min=0), ids >= 0).mean()

            return Lesson(model, list(map(len, rows)), loss)

        def next_word(self, asked):
            return self.lm.next_word

    call = choose(["train-baseline", "plain", "--epochs", "1"])
    assert (call.config, call.words) == (LabelledTrainConfig, ["--epochs", "1"])
    call.run(dataclasses.replace(call.config(judge=learned), epochs=1.0, out=str(tmp_path / "plain")))
    writer = open_baseline([tmp_path / "plain"])
    assert isinstance(writer, Heedless)
    texts, passes, _ = writer.write({"length": Target("3")}, 4, 0)
    assert len(texts) == 4 and passes > 0
