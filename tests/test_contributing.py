"""What CONTRIBUTING.md says would add a control, a metric, a baseline and a corpus does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from diffusion_lm import DiffusionLM
from diffusion_lm.baselines.common import BASELINES, open_baseline
from diffusion_lm.cli import choose, main
from diffusion_lm.control import ASSETS, CONTROLS
from diffusion_lm.evaluation.scores import METRICS, Context
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.corpus import READERS, CorpusConfig, open_corpus
from diffusion_lm.text.tokenizer import build_word_tokenizer

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
REGISTRIES: tuple[dict[str, Any], ...] = (CONTROLS, ASSETS, METRICS, BASELINES, READERS)


@pytest.fixture
def added() -> Iterator[dict[str, Any]]:
    """The names that the page's blocks define; the registries are as before after the test."""
    before = [dict(registry) for registry in REGISTRIES]
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    yield names
    for registry, old in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(old)


def test_a_corpus_and_a_baseline(added: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("the cat\nsat\n\nthe dog ran", encoding="utf8")
    config = CorpusConfig(f"poem:{tmp_path}/poem.txt")
    texts = [document.text for document in open_corpus(config).documents("dev")]
    assert texts == ["the cat sat", "the dog ran"]
    tokenizer = build_word_tokenizer(texts, 1)
    JudgeLM(JudgeConfig(tokenizer.vocab_size, 16, 1, 2, 12), tokenizer).save_pretrained(tmp_path / "judge")
    call = choose(["train-baseline", "unigram"])
    folder = str(tmp_path / "unigram")
    call.run(call.config(corpus=config, judge=str(tmp_path / "judge"), out=folder, epochs=2.0))
    assert len(open_baseline([folder]).write({}, 3, seed=0).texts) == 3


def test_a_metric(added: dict[str, Any]) -> None:
    assert METRICS["words"].of(pd.DataFrame({"text": ["a b", "a b c d"]}), Context()) == 3


def test_a_control_and_what_it_knows(added: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    lm.save_pretrained(tmp_path / "lm")
    (tmp_path / "poem.txt").write_text("The pub!\n\nThe food.", encoding="utf8")
    source = f"--corpus.source=poem:{tmp_path}/poem.txt"
    assert main(["train-control", "calm", "--model", str(tmp_path / "lm"), source]) == 0
    assert "3 loud words" in capsys.readouterr().out
    held = ["--model", str(tmp_path / "lm"), "--calm", "30", "--length", "6", "--steps", "3"]
    assert main(["generate", "-n", "2", *held]) == 0
    written = capsys.readouterr().out
    assert "✓ calm=30" in written and not {"The", "pub"} & set(re.findall(r"\w+", written))
    assert torch.equal(
        DiffusionLM.from_pretrained(tmp_path / "lm").asset(added["LoudWords"]).loud.sum(), torch.tensor(3.0)
    )
    with pytest.raises(Exception, match="holds no list of loud words"):
        DiffusionLM.from_pretrained("e2e-small").asset(added["LoudWords"])
