"""A folder says which baseline it holds."""

import pytest

from diffusion_lm.baselines.fine_tuned import FineTuned, PromptedConfig, PromptedLM
from diffusion_lm.baselines.fudge import Discriminator, DiscriminatorConfig, Fudge
from diffusion_lm.baselines.load import open_baseline
from diffusion_lm.baselines.pplm import AttributeLM, AttributeLMConfig, Pplm
from diffusion_lm.common import UserError


@pytest.fixture
def folders(judge, tmp_path):
    """Of two fine-tuned models, PPLM and FUDGE, by name."""
    models = {
        "pos": PromptedLM(PromptedConfig("pos", ["", "DET"], judge.config), judge.tokenizer),
        "attribute": PromptedLM(PromptedConfig("attribute", ["", "a=b"], judge.config), judge.tokenizer),
        "pplm": AttributeLM(AttributeLMConfig(judge.config, {"price": ["cheap"]}), judge.tokenizer),
        "fudge": Discriminator(DiscriminatorConfig(judge.config, {}, [[]], [[]] * 3, ["S"]), judge.tokenizer),
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
    with pytest.raises(UserError, match="only fine-tuned models make a product"):
        open_baseline([folders["pos"], folders["fudge"]])
    with pytest.raises(UserError, match="Only fine-tuned models are searched"):
        open_baseline([folders["fudge"]], beams=4)
    judge.save_pretrained(tmp_path / "judge")
    for name in ("judge", "nowhere"):
        with pytest.raises(UserError, match=f"{name} is no folder of a baseline"):
            open_baseline([str(tmp_path / name)])


def test_a_damaged_folder_is_refused(folders, tmp_path):
    (tmp_path / "fudge" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="fudge holds no language model"):
        open_baseline([folders["fudge"]])
