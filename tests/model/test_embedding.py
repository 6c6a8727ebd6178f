from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.diffusion.clamp import nearest
from diffusion_lm.model.denoiser import WordEmbedding


@pytest.mark.parametrize("dim", [4, 16, 128])
def test_normalised_vectors_lie_on_the_sphere_of_radius_root_d(dim: int) -> None:
    embedding = WordEmbedding(50, dim, normalize=True, learned=True)
    norms = embedding.vectors().norm(dim=-1)
    assert torch.allclose(norms, torch.full((50,), dim**0.5))
    with torch.no_grad():
        embedding.weight.mul_(100)
    assert torch.allclose(embedding.vectors().norm(dim=-1), norms)


def test_normalised_vectors_have_unit_variance_a_coordinate() -> None:
    vectors = WordEmbedding(5000, 16, normalize=True, learned=True).vectors()
    assert torch.allclose(vectors.var(0), torch.ones(16), atol=0.1)


def test_free_vectors_are_the_weights() -> None:
    embedding = WordEmbedding(5, 3, normalize=False, learned=True)
    assert torch.equal(embedding.vectors(), embedding.weight)


@pytest.mark.parametrize("normalize", [True, False])
def test_words_are_rows_of_the_table(normalize: bool) -> None:
    embedding = WordEmbedding(7, 3, normalize=normalize, learned=True)
    ids = torch.randint(7, (2, 5))
    assert torch.equal(embedding(ids), embedding.vectors()[ids])


def test_a_gradient_of_a_normalised_vector_is_tangent_to_the_sphere() -> None:
    embedding = WordEmbedding(7, 3, normalize=True, learned=True)
    (embedding(torch.arange(7)) * torch.randn(7, 3)).sum().backward()
    assert embedding.weight.grad is not None
    assert (embedding.weight.grad * embedding.weight).sum(-1).abs().max() < 1e-5
    assert embedding.weight.grad.abs().sum() > 0


def test_random_vectors_are_not_trained() -> None:
    assert not WordEmbedding(5, 3, normalize=True, learned=False).weight.requires_grad


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_nearest_is_nearest(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    vectors = scale * torch.randn(11, 3, dtype=torch.float64, generator=generator)
    assert torch.equal(nearest(x, vectors), torch.cdist(x, vectors.expand(2, -1, -1)).argmin(-1))


def test_rounding_undoes_embedding() -> None:
    embedding = WordEmbedding(200, 16, normalize=True, learned=True)
    ids = torch.randint(200, (4, 9))
    assert torch.equal(nearest(embedding(ids) + 0.05 * torch.randn(4, 9, 16), embedding.vectors()), ids)
