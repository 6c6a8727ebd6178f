"""Sentences of which the same was asked take each other's place, whatever chance has held each of them to."""

import torch

from diffusion_lm.control import Length, Pos, Reward, Span
from diffusion_lm.control.control import Each
from diffusion_lm.generation.pipeline import DiffusionLM


def brevity(texts):
    return [-float(len(text)) for text in texts]


def letters(texts):
    return sum(map(len, texts)) / len(texts)


def test_sentences_with_draws_of_their_own_are_rivals_where_the_same_was_asked(lm):
    generator = torch.Generator().manual_seed(0)
    one, other = Length(5), Length(6)
    each = Each((one, other, one, None, other), (one, other, one, None, other))
    assert [rows.tolist() for rows in each.rivals] == [[0, 2], [1, 4]]
    assert [rows.tolist() for rows in each.rows([4, 2, 0]).rivals] == [[0], [1, 2]]
    assert each.drawn_each(30, generator).asked == each.controls


def test_a_reward_is_followed_beside_a_control_that_is_drawn():
    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    for control in (Pos("PROPN AUX DET ADJ NOUN PUNCT"), Span("1:2:NP")):
        plain = lm.generate(24, control, steps=16, seed=1)
        steered = lm.generate(24, control & Reward(brevity, strength=1.0), steps=16, seed=1)
        assert letters(steered) < letters(plain) - 3


def test_a_sentence_takes_what_it_is_held_to_along():
    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    # Trees of many lengths: a sentence in another's place would have words of the wrong leaves, or none.
    control = Span("1:2:NP").bind(lm)
    out = lm.generate(16, control & Reward(brevity, strength=0.2), steps=16, seed=0)
    assert float(control.success(out.texts).mean()) > 0.9


def test_a_reward_counts_however_few_the_steps():
    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    plain = lm.generate(16, Length(9), steps=3, seed=0)
    steered = lm.generate(16, Length(9) & Reward(brevity, strength=1.0), steps=3, seed=0)
    assert letters(steered) < letters(plain) - 3
