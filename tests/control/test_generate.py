"""Generation under controls: facts hold, seeds repeat, guidance does what it says, bad input is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Control, Guidance, Infill, Latents, Length
from diffusion_lm.control.canvas import UNKNOWN
from diffusion_lm.control.guidance import InnerLoop, Pull, Steered, adagrad_step, sgd_step
from diffusion_lm.diffusion.clamp import HardClamp, NoClamp, SoftClamp
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.diffusion.samplers import DDIM, Ancestral, DPMSolverPP2M
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import lay_out


@dataclass(frozen=True)
class Quadratic(Control):
    """Energy weight |z|^2 / 2, whose gradient is known."""

    weight: float

    def energy(self, latents: Latents) -> Tensor:
        return self.weight * latents.z.square().flatten(1).sum(-1) / 2

    def success(self, texts: Sequence[str]) -> Tensor:
        return torch.ones(len(texts))

    def __str__(self) -> str:
        return "quadratic"


def test_the_same_seed_gives_the_same_text_and_another_another(lm):
    first, again, other = (lm.generate(5, steps=4, seed=seed).texts for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_special_word_stands_between_start_and_end(lm):
    for ids in lm.generate(16, steps=3).ids:
        assert (ids[0], ids[-1]) == (lm.tokenizer.start_id, lm.tokenizer.end_id)
        assert min(ids[1:-1]) > lm.tokenizer.pad_id


def test_lengths_follow_the_corpus(lm):
    lengths = torch.tensor([len(ids) for ids in lm.generate(64, steps=1).ids])
    assert bool((lm.lengths[lengths] > 0).all())
    assert len(lengths.unique()) > 3


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(), DPMSolverPP2M()])
@pytest.mark.parametrize("clamp", [HardClamp(), SoftClamp(), NoClamp()])
def test_length_and_infill_hold_with_every_sampler_and_clamp(lm, sampler, clamp):
    word = lm.tokenizer.token(10)
    control = (Infill(f"{word} ___{{2}} {word} ___") & Length(9)).bind(lm)
    made = lm.generate(3, control, steps=3, sampler=sampler, clamp=clamp)
    assert control.success(made.texts).tolist() == [1.0] * 3
    assert all(len(words) == 9 and words[0] == words[3] == word for words in made.words)


@pytest.mark.parametrize("guidance", [Pull(), InnerLoop(), Guidance.paper("attribute")])
def test_an_energy_of_zero_changes_no_bit(lm, guidance):
    free = lm.generate(4, steps=5, seed=3)
    # The fluency term alone would pull z_s towards its mean.
    if isinstance(guidance, InnerLoop):
        guidance = InnerLoop(fluency=0.0)
    assert lm.generate(4, Quadratic(0.0), steps=5, seed=3, guidance=guidance).ids == free.ids


def steered(control: Control) -> Steered:
    mask = torch.ones(2, 3, dtype=torch.bool)
    return Steered(control, lambda z, t: Prediction(z, z), mask, torch.eye(4))


def test_the_slope_is_the_energys_gradient_and_is_counted():
    z = torch.randn(2, 3, 4)
    state = steered(Quadratic(2.0))
    slope = state.slope(z, torch.full((2,), 0.5))
    assert slope is not None and state.passes == 1
    torch.testing.assert_close(slope.gradient, 2 * z)
    torch.testing.assert_close(slope.energy, z.square().flatten(1).sum(-1))


def test_pull_moves_each_sentence_by_rate_times_one_minus_p():
    z = torch.randn(2, 3, 4)
    moved = Pull(steps=1, rate=0.7).guide(steered(Quadratic(1.0)))(z, None, torch.full((2,), 0.5))
    energy = z.square().flatten(1).sum(-1) / 2
    torch.testing.assert_close((z - moved).flatten(1).norm(dim=1), 0.7 * (1 - torch.exp(-energy)))


def test_a_new_adagrad_step_is_the_sign_and_a_kept_one_shrinks():
    gradient = torch.tensor([3.0, -0.1])
    state: dict[str, Tensor] = {}
    torch.testing.assert_close(adagrad_step(gradient, 0.1, state), 0.1 * gradient.sign())
    torch.testing.assert_close(adagrad_step(gradient, 0.1, state), 0.1 * gradient.sign() / 2**0.5)
    torch.testing.assert_close(sgd_step(gradient, 0.1, {}), 0.1 * gradient)


@pytest.mark.parametrize("control", [Attribute("food", "thai"), ~Attribute("food", "Thai")])
def test_the_attribute_energy_agrees_with_finite_differences(lm, control):
    bound = control.bind(lm)
    z = torch.randn(2, 6, 16, dtype=torch.float32, requires_grad=True)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False

    def energy(at: Tensor) -> Tensor:
        return bound.energy(Latents(at, torch.tensor([0.3, 0.6]), mask, at, at, lm.embedding.vectors())).sum()

    (gradient,) = torch.autograd.grad(energy(z), z)
    direction = gradient / gradient.norm()
    step = 1e-2
    difference = (energy(z + step * direction) - energy(z - step * direction)) / (2 * step)
    assert difference.item() == pytest.approx(gradient.norm().item(), rel=2e-2)
    assert gradient[1, 4:].abs().max() == 0  # what is beyond the sentence does not count


def test_following_an_energy_lowers_it(lm):
    control = Attribute("food", "Thai").bind(lm)
    z, t = torch.randn(4, 8, 16), torch.full((4,), 0.4)
    mask = torch.ones(4, 8, dtype=torch.bool)
    state = Steered(control, lambda z, t: Prediction(z, z), mask, lm.embedding.vectors())
    before, after = state.slope(z, t), state.slope(Pull(3, 0.5).guide(state)(z, None, t), t)
    assert bool((after.energy < before.energy).all())


def test_the_algebra_is_that_of_probabilities(lm):
    a, b = Attribute("food", "Thai").bind(lm), Attribute("Type", "bar").bind(lm)
    z, t, mask = torch.randn(3, 5, 16), torch.full((3,), 0.5), torch.ones(3, 5, dtype=torch.bool)
    latents = Latents(z, t, mask, z, z, lm.embedding.vectors())
    p, q = (torch.exp(-c.energy(latents)) for c in (a, b))
    torch.testing.assert_close(torch.exp(-(a & b).energy(latents)), p * q)
    torch.testing.assert_close(torch.exp(-(a | b).energy(latents)), p + q - p * q)
    torch.testing.assert_close(torch.exp(-(~a).energy(latents)), 1 - p)
    torch.testing.assert_close((3 * a).energy(latents), 3 * a.energy(latents))
    assert [str(part) for part in (a & b).parts()] == ["food=Thai", "Type=bar"]
    texts = ["A Thai bar.", "A thai cafe.", "Thailand"]
    assert (a & b).success(texts).tolist() == [1, 0, 0]
    assert (a | b).success(texts).tolist() == [1, 1, 0]
    assert (~a).success(texts).tolist() == [0, 0, 1]


def test_the_padded_layout_follows_the_papers_length_energy(padded):
    control = Length(6).bind(padded)
    vectors = padded.embedding.vectors().detach()
    x0 = torch.zeros(1, 32, 16)
    x0[0, 0], x0[0, 7] = vectors[padded.tokenizer.start_id], vectors[padded.tokenizer.end_id]
    latents = Latents(x0, torch.tensor([0.5]), torch.ones(1, 32, dtype=torch.bool), x0, x0, vectors)
    assert control.energy(latents).item() == 0
    assert len(padded.generate(2, Length(6), steps=3)) == 2


class FourWords(Control):
    """Fixes the canvas alone, as controls of syntax by classifier do."""

    def canvas(self, canvas):
        return canvas.with_words(4)

    def success(self, texts):
        return torch.ones(len(texts))

    def __str__(self):
        return "four words"


def test_in_the_padded_layout_a_fixed_number_of_words_is_end_and_pad_that_are_known(padded):
    t = padded.tokenizer
    layout = lay_out(padded, 2, FourWords(), torch.Generator().manual_seed(0))
    assert layout.mask.shape == (2, 32) and bool(layout.mask.all())
    assert layout.known.tolist() == [[t.start_id, *[UNKNOWN] * 4, t.end_id, *[t.pad_id] * 26]] * 2
    for ids in padded.generate(2, FourWords(), steps=3).ids:
        assert ids[0] == t.start_id and ids[5:] == [t.end_id, *[t.pad_id] * 26]


def test_the_callback_sees_every_step(lm):
    seen = []
    lm.generate(3, steps=4, batch_size=2, callback=seen.append)
    assert [step.index for step in seen] == [0, 1, 2, 3] * 2
    assert sorted(row for step in seen[::4] for row in step.rows) == [0, 1, 2]


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (Attribute("colour", "red"), "no field 'colour'; the known fields are food, Type, price"),
        (Attribute("food", "Thia"), "did you mean 'Thai'"),
        (Infill("xylophone ___"), "'xylophone' in the infill: not in the model's vocabulary"),
        (Infill("no blank"), "has no blank"),
        (Infill("___{0}"), "zero words"),
        (Length(0), "out of range; this model writes 1 to 30 words"),
        (Length(31), "out of range"),
        (Length(5) & Length(6), "contradict each other: 5 and 6"),
        (Length(2) & Infill("___{3}"), "contradicts the infill, which needs exactly 3 words"),
        (Infill("___") & Infill("___"), "Two infills contradict"),
        (~Length(5), "combine it with & only"),
        (Length(5) | Attribute("food", "Thai"), "combine it with & only"),
    ],
)
def test_bad_controls_are_refused_in_a_sentence(lm, control, message):
    with pytest.raises(UserError, match=message):
        lm.generate(1, control, steps=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "damaged or foreign"),
        ("config.json", b'{"format": 1, "model": {"colour": 1}}', "does not know: colour"),
        ("tokenizer.json", b"{}", "cannot be read as a tokenizer"),
        ("model.safetensors", b"123", "truncated or damaged"),
        ("model.safetensors", None, "is missing"),
    ],
)
def test_bad_checkpoints_are_refused_in_a_sentence(lm, tmp_path, name, content, message):
    folder = tmp_path / "model"
    shutil.copytree(lm.folder, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        DiffusionLM.from_pretrained(folder)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no model 'nonsense'"):
        DiffusionLM.from_pretrained("nonsense")
    with pytest.raises(UserError, match="is not a model"):
        DiffusionLM.from_pretrained(tmp_path)


def test_a_classifier_of_another_model_is_refused(lm, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(lm.folder, folder)
    other = DiffusionLM.from_pretrained(folder, device="cpu")
    with torch.no_grad():
        other.embedding.weight += 1
    other.save_pretrained(folder)
    with pytest.raises(UserError, match="another language model"):
        DiffusionLM.from_pretrained(folder, device="cpu").attribute_model()


def test_loading_the_classifier_leaves_the_models_weights_alone(lm):
    lm.attribute_model()
    assert not any("attribute" in name for name in lm.state_dict())
