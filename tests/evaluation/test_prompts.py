"""The task data2text, from the corpus's own meanings to the page."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Prompt
from diffusion_lm.control.control import Target
from diffusion_lm.evaluation import data2text
from diffusion_lm.evaluation.run import CHOSEN, evaluate
from diffusion_lm.evaluation.scores import read_run, read_texts
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.report.page import ReportConfig, make_report
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.fields import parts_of
from diffusion_lm.text.tokenizer import build_word_tokenizer
from tests.evaluation.conftest import write_lines

ROWS = [
    ("name[Strada], food[French]", "Strada serves French food."),
    ("name[Strada], food[French]", "French food is at Strada."),
    ("name[Zizzi], eatType[pub]", "Zizzi is a pub."),
    ("name[Zizzi], eatType[pub], area[riverside]", "Zizzi is a pub by the riverside."),
]


@pytest.fixture
def prompted(config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateConfig:
    """An evaluation of a tiny model with sources on a tiny E2E, without METEOR."""
    monkeypatch.setattr(data2text, "meteor_command", lambda: [])
    folder = tmp_path / "e2e"
    folder.mkdir()
    for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("mr", "ref"), *ROWS])
    documents = list(open_corpus(CorpusConfig(str(folder))).documents("train"))
    texts = [text for document in documents for text in (document.text, *parts_of(document))]
    torch.manual_seed(0)
    shape = ModelConfig(width=16, layers=1, heads=2, embedding_dim=4, max_length=16, given=0.5, max_source=16)
    lm = DiffusionLM.new(shape, build_word_tokenizer(texts, 1), torch.ones(17), ("name", "Type", "food", "area"))
    lm.save_pretrained(tmp_path / "lm")
    corpus, model = CorpusConfig(str(folder)), str(tmp_path / "lm")
    return replace(config, model=model, corpus=corpus, tasks=["data2text"], targets={}, samples_per_target=2)


class People(Writer):
    """Writes what people wrote."""

    name, settings = "people", {"who": "people"}

    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:
        return Written([asked["data2text"].references[0]] * n)


def test_the_meanings_of_the_test_split_are_the_targets(prompted: EvaluateConfig) -> None:
    found = Prompt.targets_of(lambda: open_corpus(prompted.corpus).documents("test"))
    assert [target.value for target in found] == [
        "name = Strada, food = French",
        "name = Zizzi, Type = pub",
        "name = Zizzi, Type = pub, area = riverside",
    ]
    assert found[0].references == tuple(text for _, text in ROWS[:2])


def test_what_people_wrote_scores_best(prompted: EvaluateConfig, tmp_path: Path) -> None:
    evaluate(prompted, writer=People())
    found = read_run(prompted.out)["references"]["data2text"]
    assert set(found) == {"mbr", "mbr, checked", "sample", "human"}
    assert found["mbr"]["bleu"] == pytest.approx(100) and found["mbr"]["slot_errors"] == 0 and found["mbr"]["n"] == 3
    assert found["human"]["n"] == 1
    lines = [json.loads(line) for line in Path(prompted.out, CHOSEN).read_text(encoding="utf-8").splitlines()]
    assert [line["answer"] for line in lines] == [ROWS[0][1], ROWS[2][1], ROWS[3][1]]
    pages = make_report(ReportConfig([prompted.out], out=str(tmp_path / "report")))
    text = next(path for path in pages if path.suffix == ".md").read_text(encoding="utf-8")
    assert "TGen" in text and "slot errors" in text and "people" in text


def test_the_model_writes_from_prompts_and_keeps_its_promises(prompted: EvaluateConfig) -> None:
    evaluate(replace(prompted, must_say=True, guide_scale=1.5, candidates=2))
    frame = read_texts(prompted.out)
    own = frame[frame["task"] == "data2text"]
    assert len(own) == 6 and (own["success"] == 1).all()
    assert own.loc[own["target"].str.contains("Strada"), "text"].str.contains("Strada").all()


def test_the_checked_choice_is_among_texts_with_the_fewest_errors() -> None:
    texts = ["Zizzi is a pub.", "Zizzi is a French pub.", "It is there.", "Zizzi is the pub."]
    assert data2text.with_fewest_errors("name = Zizzi, Type = pub", texts) == [texts[0], texts[3]]
    assert data2text.with_fewest_errors("Any text.", texts) == texts
    assert data2text.with_fewest_errors("colour = red", texts) == texts


def test_targets_of_a_file_may_have_no_references(prompted: EvaluateConfig, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "prompts.jsonl", {"data2text": "name = Zizzi, food = French"})
    evaluate(replace(prompted, targets={"data2text": path}))
    assert read_run(prompted.out)["references"] == {}
    assert len(Path(prompted.out, CHOSEN).read_text(encoding="utf-8").splitlines()) == 1


def test_a_corpus_without_sources_has_no_such_task(prompted: EvaluateConfig, config: EvaluateConfig) -> None:
    with pytest.raises(UserError, match="needs a corpus with sources"):
        evaluate(replace(prompted, corpus=config.corpus, split="dev"))
