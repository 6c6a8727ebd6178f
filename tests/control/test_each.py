"""A target of its own for every sentence."""

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Infill, Keyword, Length
from diffusion_lm.control.control import Control, Each, Latents


def test_every_sentence_does_what_its_own_control_wants(lm):
    pub = Keyword("cheap") & Length(9)
    controls = [Length(5), pub, None, Infill("The ___{2}"), pub, Length(12)]
    written = lm.generate(6, controls, steps=3, seed=0, batch_size=4)
    wanted = [None if c is None else c.bind(lm) for c in controls]
    assert all(c is None or c.success([t])[0] == 1 for c, t in zip(wanted, written.texts, strict=True))
    assert [len(written.words[i]) for i in (0, 1, 4, 5)] == [5, 9, 9, 12]


def test_one_control_for_all_is_the_control_itself(lm):
    control = Length(6)
    assert lm.generate(4, [control] * 4, steps=3).texts == lm.generate(4, control, steps=3).texts


def test_energies_are_each_sentences_own_and_the_classifier_runs_once(lm):
    italian, riverside = (Attribute(*pair).bind(lm) for pair in (("food", "Thai"), ("Type", "bar")))
    z = torch.randn(3, 6, lm.config.embedding_dim)
    t = torch.full((3,), 0.5)
    calls = []

    def latents():
        return Latents(z, t, torch.ones(3, 6, dtype=torch.bool), z, z, z[0])

    model = italian.model
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    energy = Each((italian, None, riverside)).energy(latents())
    handle.remove()
    assert len(calls) == 1
    torch.testing.assert_close(energy[0], italian.energy(latents())[0])
    torch.testing.assert_close(energy[2], riverside.energy(latents())[2])
    assert energy[1] == 0


def test_the_number_of_controls_is_the_number_of_sentences(lm):
    with pytest.raises(UserError, match="2 controls are given for 3 sentences"):
        lm.generate(3, [Length(5), None])


class Growing(Control):
    """Each sentence is a word longer than the one before."""

    def drawn(self, n, canvas, generator):
        return [Length(6 + i) for i in range(n)]

    def success(self, texts):
        return torch.ones(len(texts))

    def __str__(self):
        return "growing"


def test_what_all_sentences_share_is_done_once(lm, monkeypatch):
    calls, original = [], Keyword.reweight

    def counted(self, logits, latents):
        calls.append(len(logits))
        return original(self, logits, latents)

    monkeypatch.setattr(Keyword, "reweight", counted)
    out = lm.generate(5, Growing() & Keyword("cheap"), steps=3, seed=0)
    assert calls == [5, 5, 5]
    assert Keyword("cheap").success(out.texts).tolist() == [1.0] * 5
    assert [len(words) for words in out.words] == [6, 7, 8, 9, 10]
