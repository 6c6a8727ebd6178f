from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.diffusion import distillation
from diffusion_lm.diffusion.distillation import FIRST, LONGEST, MOST_CLASSES, Distillation, held_words
from diffusion_lm.diffusion.process import UNKNOWN, Given, Prediction, Source
from diffusion_lm.diffusion.schedule import Sqrt

TABLE = torch.tensor([[-1.2], [0.1], [1.3]])


class Network:
    """Says of every word what one number does, which grows with what it is shown; it notes how it was asked."""

    schedule = Sqrt()

    def __init__(self, bias: float = 0.0) -> None:
        self.weight = torch.tensor(bias, requires_grad=True)
        self.asked: list[tuple[Tensor, Tensor, Tensor | None, Given | None]] = []

    def embed(self, ids: Tensor) -> Tensor:
        return TABLE[ids]

    def read(self, source: Tensor) -> Source:
        return Source(source, [source.float() + self.weight])

    def logits_of(self, shown: Tensor | float) -> Tensor:
        return (self.weight + shown) * torch.tensor([0.0, 1.0, -1.0])

    def __call__(
        self, z: Tensor, t: Tensor, mask: Tensor, previous: Tensor | None = None, given: Given | None = None
    ) -> Prediction:
        self.asked.append((z, t, previous, given))
        shown = torch.zeros_like(z) if previous is None else previous
        return Prediction(z * 0 + self.weight + 1, self.logits_of(shown))

    predict = rounding_logits = None


IDS, MASK = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[True, True, True], [True, True, False]])
T = torch.tensor([0.3, 0.9])


@pytest.mark.parametrize("short", [-1.0, 1.0])  # all steps are long, all are short
def test_a_student_is_held_to_what_the_teacher_says_twice_in_long_steps_and_once_in_short(
    monkeypatch: pytest.MonkeyPatch, short: float
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(distillation, "SHORT", short)
    monkeypatch.setattr(distillation, "held_words", lambda ids, words: torch.ones(*ids.shape, words, dtype=torch.bool))
    teacher, student = Network(0.5), Network(0.2)
    loss = Distillation(teacher)(student, IDS, MASK, T)["words"]
    (z, t, told, _), (again, _, own, _) = teacher.asked
    assert torch.equal(z, again) and torch.equal(t, T) and own is not None and told is not None
    assert torch.allclose(own, teacher.logits_of(told).softmax(-1) @ TABLE)  # its answer to the same z_t
    (z_s, s, unshown, _), (z_t, _, shown, _) = student.asked
    assert torch.equal(z_t, z) and not torch.equal(z_s, z) and unshown is None and told is shown
    assert bool((s >= T).all()) and bool((s <= (T + LONGEST).clamp(max=1)).all())
    # KL of the two softmaxes by hand, a mean over the positions that exist.
    wanted = teacher.logits_of(own if short < 0 else told).softmax(-1)
    earlier = student.logits_of(torch.zeros_like(z)).softmax(-1) @ TABLE
    for row in range(2):
        assert torch.equal(shown[row], 0 * z[row]) or torch.allclose(shown[row], earlier[row])
        said = student.logits_of(shown[row]).softmax(-1)
        divergence = (wanted[row] * (wanted[row] / said).log()).sum(-1)
        assert torch.allclose(loss[row], divergence[MASK[row]].mean())


def test_what_a_program_holds_is_shown_as_it_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where only the true word may stand, the average over what may is that word's vector.
    monkeypatch.setattr(distillation, "held_words", lambda ids, words: F.one_hot(ids, words).bool())
    monkeypatch.setattr(distillation, "FIRST", 0.0)
    teacher, student = Network(0.5), Network(0.2)
    loss = Distillation(teacher)(student, IDS, MASK, T)["words"]
    for asked in (student.asked[1], *teacher.asked):
        assert torch.equal(asked[2], TABLE[IDS])  # type: ignore[arg-type]
    assert bool((loss > 0).all())


def test_words_are_held_in_classes_that_the_true_word_is_in() -> None:
    torch.manual_seed(0)
    n, length, vocab = 3000, 8, 40
    ids = torch.randint(vocab, (n, length))
    allowed = held_words(ids, vocab)
    assert bool(allowed.gather(-1, ids[..., None]).all())
    held = ~allowed.all(-1)
    shares = held.float().mean(1)
    for share, wanted in ((0.0, 1 / 3), (1.0, 1 / 3)):  # and a share in between of the others, which may round to these
        assert wanted - 0.02 < float((shares == share).float().mean()) < wanted + 0.09
    # Classes are apart: two positions that are held let the same words stand or none in common.
    some = allowed[held][:200].float()
    common, sizes = some @ some.T, some.sum(-1)
    assert bool(((common == 0) | (common == sizes)).all())
    counts = [len(held_words(ids, vocab).flatten(0, 1).unique(dim=0)) for _ in range(40)]
    assert min(counts) < 5 and 20 < max(counts) <= min(vocab, MOST_CLASSES) + 1


def test_nothing_is_left_to_learn_where_a_student_says_the_same() -> None:
    class Deaf(Network):
        def __call__(self, z, t, mask, previous=None, given=None):  # type: ignore[no-untyped-def]
            return super().__call__(z, t, mask, None, given)

    student = Deaf(0.5)
    loss = Distillation(Deaf(0.5))(student, IDS, MASK, T)["words"]
    loss.sum().backward()
    assert torch.allclose(loss, torch.zeros(2), atol=1e-6)
    assert abs(float(student.weight.grad)) < 1e-6  # type: ignore[arg-type]


def test_the_teacher_learns_nothing_and_some_students_are_shown_nothing() -> None:
    torch.manual_seed(0)
    teacher, student = Network(0.5), Network(0.2)
    n = 2000
    ids, t = torch.zeros(n, 1, dtype=torch.long), torch.full((n,), 0.5)
    Distillation(teacher)(student, ids, ids == 0, t)["words"].sum().backward()
    assert teacher.weight.grad is None and student.weight.grad is not None
    assert abs(float((student.asked[1][2] == 0).float().mean()) - FIRST) < 0.03  # type: ignore[union-attr]


def test_words_that_are_given_do_not_count_and_the_teacher_reads_the_source_itself() -> None:
    torch.manual_seed(0)
    teacher, student = Network(0.5), Network(0.2)
    known = torch.tensor([[0, UNKNOWN, 2], [2, 1, UNKNOWN]])
    source = student.read(torch.tensor([[1, 2], [0, UNKNOWN]]))
    loss = Distillation(teacher)(student, IDS, MASK, T, Given(known, source))["words"]
    read = teacher.asked[1][3]
    assert read is not None and read.source is not None and torch.equal(read.source.ids, source.ids)
    assert torch.equal(read.source.past[0], source.ids.float() + 0.5) and torch.equal(read.known, known)
    assert student.asked[1][3] is not None and student.asked[1][3].source is source
    assert loss[0] > 0 and loss[1].isnan()  # of the second sentence no word is written
