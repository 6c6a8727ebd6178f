from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.training.lm import RunConfig, batches_from, epoch_batches, prepare

LENGTHS = torch.randint(3, 21, (200,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", [RunConfig(batch_tokens=128), RunConfig(batch_sentences=7)])
def test_an_epoch_sees_every_sentence_once(config):
    for epoch in range(2):
        batches = epoch_batches(LENGTHS, config, None, epoch)
        assert torch.cat(batches).sort().values.tolist() == list(range(200))


def test_epochs_and_seeds_differ_and_can_be_had_again():
    def epoch(seed, number):
        return torch.cat(epoch_batches(LENGTHS, RunConfig(batch_tokens=128, seed=seed), None, number)).tolist()

    assert epoch(0, 0) == epoch(0, 0)
    assert len({tuple(epoch(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


def test_batch_sentences_is_the_number_of_sentences():
    sizes = [len(batch) for batch in epoch_batches(LENGTHS, RunConfig(batch_sentences=64), None, 0)]
    assert sizes == [64, 64, 64, 8]


def test_on_a_canvas_every_sentence_takes_the_whole_of_it():
    sizes = {len(batch) for batch in epoch_batches(LENGTHS, RunConfig(batch_tokens=128), 32, 0)}
    assert sizes == {4}


@pytest.mark.parametrize("step", [0, 1, 17, 60])
def test_the_stream_can_be_taken_up_anywhere(step):
    config = RunConfig(batch_tokens=128)
    whole = list(itertools.islice(batches_from(LENGTHS, config, None, 0), 80))
    rest = list(itertools.islice(batches_from(LENGTHS, config, None, step), 80 - step))
    assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in whole[step:]]


# -- what is prepared ----------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.txt").write_text("a b a b c\nb a\n" * 10)
    (folder / "valid.txt").write_text("a b\n")
    return CorpusConfig(str(folder))


def test_a_tokenizer_is_built_once_and_again_for_other_settings(make_config, corpus, tmp_path, monkeypatch):
    config = replace(make_config(tokenizer_min_count=15), corpus=corpus)
    first = prepare(config, tmp_path)
    assert first.tokenizer.id("c") is None
    assert len(first.train) == 20 and len(first.dev) == 1
    with monkeypatch.context() as patch:
        patch.setattr("diffusion_lm.training.lm.build_tokenizer", None)  # may not be called
        assert prepare(config, tmp_path).tokenizer.fingerprint == first.tokenizer.fingerprint
    other = prepare(replace(config, tokenizer=replace(config.tokenizer, min_count=5)), tmp_path)
    assert other.tokenizer.id("c") is not None


def test_a_damaged_cache_is_built_again(make_config, corpus, tmp_path, caplog):
    config = replace(make_config(), corpus=corpus)
    fingerprint = prepare(config, tmp_path).tokenizer.fingerprint
    (file,) = (tmp_path / "cache").glob("tokenizer-*/tokenizer.json")
    file.write_text("{")
    assert prepare(config, tmp_path).tokenizer.fingerprint == fingerprint
    assert "The cache is damaged" in caplog.text
    assert json.loads(file.read_text())


def test_bpe_is_the_other_choice(make_config, corpus, tmp_path):
    config = make_config(tokenizer_kind="bpe", tokenizer_vocab_size=270)
    data = prepare(replace(config, corpus=corpus), tmp_path)
    assert data.tokenizer.decode(data.train.ids[: data.train.offsets[1]].tolist()) == "a b a b c"


def test_a_corpus_of_long_sentences_is_refused(make_config, tmp_path):
    (tmp_path / "train.txt").write_text("a b c d\n" * 50)
    config = replace(make_config(model_max_length=4), corpus=CorpusConfig(str(tmp_path), long="leave_out"))
    with pytest.raises(UserError, match="max_length"):
        prepare(config, Path(tmp_path, "run"))
