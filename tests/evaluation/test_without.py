from __future__ import annotations

from pathlib import Path

from diffusion_lm.evaluation.scores import Without
from diffusion_lm.text.corpus import CorpusConfig, open_corpus


def test_leaves_out_just_those_sentences_of_train(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("A pub.\nThe pub , open.\nA pub is open.\n", encoding="utf-8")
    whole = open_corpus(CorpusConfig(source=str(tmp_path)))
    part = Without(whole, [("A", "pub", "."), ("The", "pub", ",", "open", ".")])
    assert [document.text for document in part.documents("train")] == ["A pub is open."]
    assert len(list(part.documents("dev"))) == 3
    # Encoded forms are cached by fingerprint.
    assert part.fingerprint("train") not in (
        whole.fingerprint("train"),
        Without(whole, []).fingerprint("train"),
    )
