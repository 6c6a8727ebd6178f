from __future__ import annotations

import pytest
import torch

from diffusion_lm.model.transformer import TIME_FEATURES, LayerNorm, Transformer, time_features


def transformer(**settings: object) -> Transformer:
    model = Transformer(5, (16, 2, 4), 12, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model.eval()


def test_time_features_are_sines_of_1000_t() -> None:
    t = torch.tensor([0.0, 0.25, 1.0])
    features = time_features(t)
    assert features.shape == (3, TIME_FEATURES)
    half = TIME_FEATURES // 2
    assert torch.equal(features[0], torch.cat([torch.ones(half), torch.zeros(half)]))
    # The first frequency is 1, the last almost 1 / 10,000.
    assert features[1, 0].item() == pytest.approx(torch.tensor(250.0).cos().item(), abs=1e-4)
    assert features[2, half - 1].item() == pytest.approx(1.0, abs=0.01)
    assert features[2, -1].item() == pytest.approx(1000 * 10_000 ** (-(half - 1) / half), rel=0.01)
    assert torch.allclose(features[:, :half] ** 2 + features[:, half:] ** 2, torch.ones(3, half))


def test_time_features_tell_the_steps_of_the_papers_grid_apart() -> None:
    features = time_features(torch.linspace(0, 1, 2001))
    assert (features[1:] - features[:-1]).norm(dim=-1).min() > 0.1


def test_time_features_do_not_lose_digits_in_bf16() -> None:
    t = torch.tensor([0.5])
    assert time_features(t.bfloat16()).dtype == torch.float32
    assert torch.equal(time_features(t.bfloat16()), time_features(t))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_mask_is_as_if_the_positions_were_not_there(pre_norm: bool) -> None:
    model = transformer(pre_norm=pre_norm)
    latents, t = torch.randn(2, 9, 5), torch.tensor([0.2, 0.9])
    mask = torch.arange(9) < torch.tensor([[6], [9]])
    padded = model(latents, t, mask)
    assert torch.allclose(padded[:1, :6], model(latents[:1, :6], t[:1]), rtol=1e-4, atol=1e-4)
    assert torch.allclose(padded[1:], model(latents[1:], t[1:]), rtol=1e-4, atol=1e-4)
    latents[0, 6:] = 1e3
    assert torch.equal(model(latents, t, mask)[0, :6], padded[0, :6])


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    model, latents, t = transformer(), torch.randn(2, 9, 5), torch.rand(2)
    assert torch.equal(model(latents, t, torch.ones(2, 9, dtype=torch.bool)), model(latents, t))


def test_every_output_depends_on_every_position_and_on_the_time() -> None:
    model = transformer()
    latents, t = torch.randn(1, 5, 5, requires_grad=True), torch.tensor([0.5], requires_grad=True)
    hidden = model(latents, t)
    for i in range(5):
        to_latents, to_t = torch.autograd.grad(hidden[0, i].square().sum(), (latents, t), retain_graph=True)
        assert (to_latents.abs().sum(-1) > 0).all() and to_t.abs() > 0


def test_positions_are_not_interchangeable() -> None:
    model, latents, t = transformer(), torch.randn(1, 5, 5), torch.tensor([0.5])
    assert not torch.allclose(model(latents.flip(1), t).flip(1), model(latents, t), atol=1e-3)


def test_dropout_acts_in_training_only() -> None:
    model, latents, t = transformer(dropout=0.5), torch.randn(1, 5, 5), torch.tensor([0.5])
    assert torch.equal(model(latents, t), model(latents, t))
    model.train()
    assert not torch.equal(model(latents, t), model(latents, t))


@pytest.mark.parametrize("layers", [2, 24])
def test_depth_does_not_blow_up_the_residual_stream(layers: int) -> None:
    model = Transformer(5, (64, layers, 4), 64).eval()
    assert 0.5 < model(torch.randn(2, 9, 5), torch.rand(2)).std().item() < 2.0


def test_the_residual_stream_is_bf16_under_autocast() -> None:
    model, latents, t = transformer(), torch.randn(2, 5, 5), torch.rand(2)
    exact = model(latents, t)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(latents, t)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.05 * exact.norm()


def test_layer_norm_leaves_the_precision_and_sums_in_float32() -> None:
    norm, x = LayerNorm(64), torch.randn(3, 64) + 100  # in bf16 sums the mean would be lost
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16 and norm(x).dtype == torch.float32
    torch.testing.assert_close(found.float(), torch.nn.LayerNorm(64)(x.bfloat16().float()), atol=0.02, rtol=0)
