"""A control of a user's own that is defined inside a test (`tests/test_docs.py` runs those of the documentation)."""

from dataclasses import dataclass

import torch

from diffusion_lm.control import CONTROLS, Attribute, Control, Energy, Keyword, Length, Program


def test_a_control_that_is_defined_anywhere_is_one_of_all(lm, monkeypatch):
    monkeypatch.setitem(CONTROLS, "calm", None)  # taken out again after the test

    @dataclass(frozen=True)
    class Calm(Control, name="calm"):
        """The first word's latents are near 0."""

        help = "How near 0."
        scale: str

        def compile(self, host, canvases, generator):
            energies = (Energy(lambda latents: float(self.scale) * latents.z[:, 1].square().mean(-1)),)
            return [Program(canvas, energies=energies) for canvas in canvases]

        def success(self, texts):
            return torch.tensor([float("!" not in text) for text in texts])

        def __str__(self):
            return f"calm={self.scale}"

    assert CONTROLS["calm"] is Calm and Calm.task == "calm"
    calm = CONTROLS["calm"].of_texts(["2"], None)
    assert CONTROLS["calm"].target({"calm": "2"}, 4).value == "2" and Calm.prompt("2") == [("calm=2", 0)]
    controls = [calm, calm & Length(5), calm | Attribute("food", "Thai"), ~calm, 2 * calm & Keyword("cheap"), None]
    out = lm.generate(6, controls, steps=3, seed=0)
    assert len(out.words[1]) == 5 and "cheap" in out.words[4]
    assert [str(part) for part in controls[4].parts()] == ["2 * calm=2", "keyword=cheap"]
    # The energy is followed: a large one and its opposite part the sentences.
    one, other = (lm.generate(8, control, steps=3, seed=0).texts for control in (Calm("50") & Length(6), Length(6)))
    assert one != other
