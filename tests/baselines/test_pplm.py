"""PPLM: the memory, the ascent and the fusion."""

import pytest
import torch

from diffusion_lm.baselines.pplm import (
    Ascent,
    AttributeLM,
    AttributeLMConfig,
    Pplm,
    PplmConfig,
    Prefix,
    fused,
    perturbed,
)
from diffusion_lm.common import UserError
from diffusion_lm.control.control import Target
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.model.causal import JudgeLM

IDS = torch.tensor([[0, 4, 5, 6], [0, 7, 7, 4], [0, 6, 8, 9]])
CHEAP = [(0, 1)]


@pytest.fixture
def model(judge):
    model = AttributeLM(AttributeLMConfig(judge.config, {"price": ["cheap", "dear"]}), judge.tokenizer)
    model.lm.load_state_dict(judge.state_dict())
    return model.eval().requires_grad_(False)


def test_without_updates_it_is_the_language_model(model):
    for length in (1, 2, 4):
        ids = IDS[:, :length]
        p = fused(model, ids, CHEAP, Ascent(updates=0)).softmax(-1)
        torch.testing.assert_close(p, model.lm.logits(model.lm.hidden(ids)[:, -1]).softmax(-1))


def test_updates_raise_the_attribute_and_longer_ones_more(model):
    prefix = Prefix(model.lm, IDS)
    found = [
        model.said.log_p(prefix.read(perturbed(model, prefix, CHEAP, Ascent(updates=n)))[1], CHEAP) for n in (0, 3, 30)
    ]
    assert (found[0] < found[1]).all() and (found[1] < found[2]).all()


def test_an_attribute_that_is_a_word_makes_this_word_likelier(model):
    """Its classifier reads the states as the output layer does."""
    with torch.no_grad():
        model.said.linear.weight[1] = model.lm.embedding.weight[7]
        model.said.linear.weight[[0, 2]] = 0
    before, after = (fused(model, IDS, CHEAP, Ascent(updates=n)).softmax(-1)[:, 7] for n in (0, 30))
    assert (after > before).all()


def test_a_step_is_as_long_as_it_says_in_every_block_and_sentence(model):
    prefix = Prefix(model.lm, IDS)
    moved = perturbed(model, prefix, CHEAP, Ascent(updates=1, step=0.3))
    for before, after in zip(prefix.past, moved, strict=True):
        lengths = torch.linalg.vector_norm(after - before, dim=(0, 2, 3, 4))
        torch.testing.assert_close(lengths, torch.full((3,), 0.3))


def test_a_sentence_does_not_feel_the_others(model):
    together = fused(model, IDS, CHEAP, Ascent(updates=5))
    alone = torch.cat([fused(model, ids[None], CHEAP, Ascent(updates=5)) for ids in IDS])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_divergence_is_held_back(model):
    def divergence(kl):
        prefix = Prefix(model.lm, IDS)
        before, _ = prefix.read(prefix.past)
        after, _ = prefix.read(perturbed(model, prefix, CHEAP, Ascent(step=0.2, kl=kl)))
        return torch.where(before.isfinite(), after.exp() * (after - before), 0.0).sum(-1).mean()

    assert 0 < divergence(100.0) < divergence(0.0) / 2


@pytest.fixture(scope="module")
def trained(corpus, learned, tmp_path_factory):
    """Folder of an attribute model of the corpus."""

    class Corpus:
        def documents(self, split):
            return [document for document, _ in corpus * 8]

    out = str(tmp_path_factory.mktemp("pplm"))
    rates = {"epochs": 150, "lr": 0.3, "warmup": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusion_lm.baselines.common.open_corpus", lambda config: Corpus())
        Pplm.train(PplmConfig(judge=learned, out=out, **rates))
    return out


def test_training_leaves_the_language_model_alone_and_knows_the_sentences(trained, learned, corpus):
    model, judge = AttributeLM.from_pretrained(trained), JudgeLM.from_pretrained(learned)
    assert weights_hash(model.lm) == weights_hash(judge)
    for document, _ in corpus:
        ids = torch.tensor([judge.tokenizer.encode_sentence(document.text)[:-1]])
        (wanted,) = model.said.of_target(f"price={document.fields['price']}")
        assert model.said.log_p(judge.hidden(ids).mean(1), wanted).exp() > 0.6


def test_it_writes_again_what_it_wrote_and_refuses_what_it_does_not_know(trained):
    writer = Pplm(AttributeLM.from_pretrained(trained), Ascent(updates=2))
    writer.check("attribute")
    cheap = {"attribute": Target("price=cheap")}
    assert writer.write(cheap, 2, 1) == writer.write(cheap, 2, 1)
    with pytest.raises(UserError, match="pos"):
        writer.check("pos")
    with pytest.raises(UserError, match="price=free"):
        writer.write({"attribute": Target("price=free")}, 1, 0)
