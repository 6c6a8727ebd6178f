from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_lm.diffusion.losses import CrossEntropy, Simple, VariationalBound
from diffusion_lm.model.denoiser import Denoiser, ModelConfig
from diffusion_lm.text.tokenizer import Tokenizer

MakeNet = Callable[..., Denoiser]

EVERY_MODEL = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"self_conditioning": False},
        {"objective": "simple", "normalize_embeddings": False, "norm": "post"},
        {"objective": "simple", "prediction": "eps", "normalize_embeddings": False},
        {"objective": "vlb", "normalize_embeddings": False},
    ],
    ids=["words", "no-self-conditioning", "simple", "eps", "vlb"],
)


def batch(net: Denoiser) -> tuple[Tensor, Tensor]:
    """Sentences of 5, 7 and 6 words in a batch of 8 positions."""
    mask = torch.arange(8) < torch.tensor([[5], [7], [6]])
    return torch.randint(4, net.vocab_size, (3, 8)).where(mask, Tokenizer.pad_id), mask


@EVERY_MODEL
def test_a_sentence_does_not_see_the_padding_of_its_batch(make_net: MakeNet, settings: dict[str, object]) -> None:
    net = make_net(**settings)
    _, mask = batch(net)
    z, t, previous = torch.randn(3, 8, 4), torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 8, 4)
    together = net(z, t, mask, previous)
    for i, length in enumerate((5, 7, 6)):
        alone = net(z[i : i + 1, :length], t[i : i + 1], None, previous[i : i + 1, :length])
        assert alone.logits is not None and together.logits is not None
        assert torch.allclose(together.x0[i, :length], alone.x0[0], rtol=1e-4, atol=1e-4)
        assert torch.allclose(together.logits[i, :length], alone.logits[0], rtol=1e-4, atol=1e-3)


@EVERY_MODEL
def test_the_order_of_a_batch_does_not_matter(make_net: MakeNet, settings: dict[str, object]) -> None:
    net = make_net(**settings)
    _, mask = batch(net)
    z, t, order = torch.randn(3, 8, 4), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([2, 0, 1])
    straight, turned = net(z, t, mask), net(z[order], t[order], mask[order])
    assert torch.allclose(straight.x0[order], turned.x0, rtol=1e-4, atol=1e-5)


@EVERY_MODEL
def test_what_is_masked_changes_no_term_and_no_gradient(make_net: MakeNet, settings: dict[str, object]) -> None:
    net = make_net(**settings)
    ids, mask = batch(net)
    other = ids.where(mask, torch.randint(4, net.vocab_size, ids.shape))
    t = torch.tensor([0.2, 0.0, 0.7])

    def run(ids: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        torch.manual_seed(0)
        net.zero_grad()
        terms = net.objective()(net, ids, mask, t)
        torch.stack(list(terms.values())).sum().backward()
        return terms, [p.grad.clone() for p in net.parameters() if p.grad is not None]

    (terms, gradients), (other_terms, other_gradients) = run(ids), run(other)
    for name, term in terms.items():
        assert term.shape == (3,) and torch.allclose(term, other_terms[name], rtol=1e-4)
    assert len(gradients) == len(other_gradients)
    for a, b in zip(gradients, other_gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-4 * a.abs().max().item())


@EVERY_MODEL
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_reaches_every_parameter(make_net: MakeNet, settings: dict[str, object], autocast: bool) -> None:
    # Under autocast, the pass without gradient must not leave cast weights without gradient for the second.
    net = make_net(**settings).train()
    ids, mask = batch(net)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        terms = net.objective()(net, ids, mask, torch.tensor([0.2, 0.5, 0.7]))
    torch.stack([term.sum() for term in terms.values()]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("objective", "kind"), [("cross_entropy", CrossEntropy), ("simple", Simple), ("vlb", VariationalBound)]
)
def test_the_config_names_the_objective(make_net: MakeNet, objective: str, kind: type) -> None:
    net = make_net(objective=objective)
    assert isinstance(net.objective(), kind) and net.predicts_words == (kind is CrossEntropy)


def test_self_conditioning_starts_from_zeros_and_matters(make_net: MakeNet) -> None:
    net = make_net()
    z, t, previous = torch.randn(2, 5, 4), torch.rand(2), torch.randn(2, 5, 4)
    first = net(z, t, None)
    assert torch.equal(first.x0, net(z, t, None, torch.zeros_like(z)).x0)
    assert not torch.allclose(first.x0, net(z, t, None, previous).x0, atol=1e-3)
    without = make_net(self_conditioning=False)
    assert torch.equal(without(z, t, None).x0, without(z, t, None, previous).x0)


def test_in_training_half_of_the_sentences_are_shown_their_own_x0(
    make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net()
    forward, calls = net.forward, []

    def watched(
        z: Tensor, t: Tensor, mask: Tensor | None, previous: Tensor | None = None, given: object = None
    ) -> object:
        calls.append((z, previous, torch.is_grad_enabled()))
        return forward(z, t, mask, previous)

    monkeypatch.setattr(net, "forward", watched)
    z, t, mask = torch.randn(6, 5, 4), torch.rand(6), torch.ones(6, 5, dtype=torch.bool)
    net.predict(z, t, mask)
    (first, none, first_gradient), (second, previous, second_gradient) = calls
    assert len(first) == 3 and none is None and not first_gradient
    assert second is z and second_gradient
    shown = previous.abs().sum((1, 2)) > 0
    assert shown.sum() == 3 and not previous.requires_grad
    assert torch.allclose(previous[shown], forward(z[shown], t[shown], None).x0, atol=1e-5)


@pytest.mark.parametrize("layout", ["exact", "padded"])
def test_words_are_embedded_and_rounded(make_net: MakeNet, layout: str) -> None:
    net = make_net(layout=layout)
    ids, _ = batch(net)
    assert torch.equal(net.embed(ids), net.embedding.vectors()[ids])
    assert torch.equal(net.rounding_logits(net.embed(ids)).argmax(-1), ids)


def test_random_embeddings_stay(make_net: MakeNet) -> None:
    net = make_net(embeddings="random")
    ids, mask = batch(net)
    net.objective()(net, ids, mask, torch.rand(3))["words"].sum().backward()
    assert net.embedding.weight.grad is None and not net.embedding.weight.requires_grad


def test_an_untrained_model_starts_at_the_uniform_distribution() -> None:
    net = Denoiser(ModelConfig(size="tiny", layers=1), 8)
    ids, mask = batch(net)
    loss = net.objective()(net, ids, mask, torch.rand(3))["words"]
    assert loss.tolist() == pytest.approx([torch.tensor(net.vocab_size).log().item()] * 3, rel=1e-4)


def test_base_is_the_size_of_the_papers_model() -> None:
    # The paper's denoiser is BERT-base; 821 words of dimension 16 hardly add to it.
    config = ModelConfig(size="base", objective="simple", norm="post", self_conditioning=False, layout="padded")
    with torch.device("meta"):
        net = Denoiser(config, 821)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(87e6, rel=0.01)
    assert sum(p.numel() for p in net.transformer.blocks.parameters()) == 12 * (12 * 768**2 + 13 * 768)
