from __future__ import annotations

import itertools
import json
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.model.causal import Ends, JudgeConfig, JudgeLM, SequenceDropout, fluency, sample
from diffusion_lm.text.encoded import EncodedCorpus, EncodedMeta
from diffusion_lm.text.tokenizer import Tokenizer, build_word_tokenizer
from diffusion_lm.training.judge import JudgeProgress, JudgeTrainConfig, corpus_nats, train_judge


@pytest.fixture
def tokenizer() -> Tokenizer:
    return build_word_tokenizer(["a b c"], min_count=1)


@pytest.fixture
def judge(tokenizer: Tokenizer) -> JudgeLM:
    """A judge whose random weights are large enough that its distributions are far from uniform."""
    model = JudgeLM(JudgeConfig(tokenizer.vocab_size, width=8, layers=2, heads=2, max_length=12), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model.eval()


def test_probabilities_of_all_sentences_sum_to_one(judge: JudgeLM) -> None:
    """Those of up to two words, and those that go on, enumerated."""
    t = judge.tokenizer
    words = [i for i in range(t.vocab_size) if i not in (t.start_id, t.end_id, t.pad_id)]
    ended = [[t.start_id, *w, t.end_id] for k in range(3) for w in itertools.product(words, repeat=k)]
    going_on = [[t.start_id, *w] for w in itertools.product(words, repeat=3)]
    nats, counts = judge.score(ended + going_on)
    assert nats.neg().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert counts.tolist() == [len(s) - 1 for s in ended + going_on]
    assert nats.std() > 0.1


def test_start_and_pad_are_impossible(judge: JudgeLM) -> None:
    t = judge.tokenizer
    nats, _ = judge.score([[t.start_id, t.pad_id, t.end_id], [t.start_id, t.start_id, t.end_id]])
    assert nats.tolist() == [math.inf, math.inf]


def test_padding_changes_nothing(judge: JudgeLM) -> None:
    t = judge.tokenizer
    sentence = torch.tensor([[t.start_id, 4, 5, 6, t.end_id]])
    padded = torch.cat([sentence, torch.full((1, 4), t.pad_id)], dim=1)
    alone = judge.nll(sentence, torch.ones_like(sentence, dtype=torch.bool))
    beside = judge.nll(padded, padded != t.pad_id)
    assert alone.shape == (1, 4) and beside.shape == (1, 8)
    torch.testing.assert_close(beside[:, :4], alone)
    assert not beside[:, 4:].any()


def test_score_is_nll_summed_in_the_order_given_for_any_batch_size(judge: JudgeLM) -> None:
    t = judge.tokenizer
    sentences = [[t.start_id, *[4 + i % 3 for i in range(n)], t.end_id] for n in (3, 1, 5, 0, 2)]
    each = [judge.nll(torch.tensor([s]), torch.ones(1, len(s), dtype=torch.bool)).sum().item() for s in sentences]
    for batch_tokens in (1, 8, 1000):
        assert judge.score(sentences, batch_tokens)[0].tolist() == pytest.approx(each, rel=1e-5)
    nats, counts = judge.score([])
    assert nats.shape == counts.shape == (0,)


def test_the_future_does_not_change_the_past(judge: JudgeLM) -> None:
    t = judge.tokenizer
    ids = torch.tensor([[t.start_id, 4, 5, 6, 4, t.end_id], [t.start_id, 4, 5, 5, 6, t.end_id]])
    nll = judge.nll(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(nll[0, :2], nll[1, :2], rtol=0, atol=0)
    assert (nll[0, 2:] != nll[1, 2:]).all()


def test_scoring_has_no_dropout(judge: JudgeLM) -> None:
    sentences = [[judge.tokenizer.start_id, 4, 5, judge.tokenizer.end_id]]
    expected = judge.score(sentences)[0]
    assert torch.equal(judge.train().score(sentences)[0], expected)


def test_dropout_takes_a_feature_from_all_positions() -> None:
    torch.manual_seed(0)
    x = SequenceDropout(0.25)(torch.ones(200, 3, 8))
    assert torch.equal(x, x[:, :1].expand_as(x))
    assert x.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (x == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_fluency_is_total_nats_over_total_tokens(judge: JudgeLM) -> None:
    t = judge.tokenizer
    found = fluency(judge, ["a b c a", "b zebra"])
    nats, counts = judge.score([[t.start_id, 4, 5, 6, 4, t.end_id], [t.start_id, 5, t.unk_id, t.end_id]])
    assert counts.tolist() == [5, 3]
    assert found == pytest.approx(nats.sum().item() / 8)


def test_samples_follow_the_judge_s_probabilities(judge: JudgeLM) -> None:
    t, n = judge.tokenizer, 4000
    found = sample(judge.next_word, Ends(t.start_id, t.end_id, 4), n, torch.Generator().manual_seed(0))
    assert all(s[0] == t.start_id and s.count(t.end_id) == 1 and s[-1] == t.end_id and len(s) <= 4 for s in found)
    short = [[t.start_id, t.end_id], *([t.start_id, w, t.end_id] for w in (t.unk_id, 4, 5, 6))]
    for sentence, nats in zip(short, judge.score(short)[0].tolist(), strict=True):
        p = math.exp(-nats)
        assert abs(found.count(sentence) / n - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_the_cache_changes_no_sample(judge: JudgeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lm.model.causal.autocast", lambda device: nullcontext())
    plain = sample(judge.next_word, judge.ends, 50, torch.Generator().manual_seed(5))
    assert judge.sample(50, torch.Generator().manual_seed(5)) == plain and len({len(ids) for ids in plain}) > 2


def test_sampling_repeats_with_its_seed(judge: JudgeLM) -> None:
    one, two = (judge.train().sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == two and all(len(sentence) <= 12 for sentence in one)


def test_save_and_load_give_the_same_judge(judge: JudgeLM, tmp_path: Path) -> None:
    judge.save_pretrained(tmp_path / "judge")
    again = JudgeLM.from_pretrained(tmp_path / "judge")
    assert again.config == judge.config and not again.training
    assert again.tokenizer.fingerprint == judge.tokenizer.fingerprint
    assert fluency(again, ["a b", "c"]) == fluency(judge, ["a b", "c"]) and again.human_nats is None
    judge.human_nats = 1.5
    judge.save_pretrained(tmp_path / "half", torch.bfloat16)
    half = JudgeLM.from_pretrained(tmp_path / "half")
    assert half.human_nats == 1.5 and half.embedding.weight.dtype == torch.float32


def test_the_bundled_judge_knows_what_human_text_has() -> None:
    judge = JudgeLM.from_pretrained("e2e-judge")
    assert judge.human_nats is not None and 1 < judge.human_nats < 2
    assert fluency(judge, ["The Punter is a pub."]) < fluency(judge, ["pub a is Punter The."])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "holds no judge; make one with: diffusion-lm train-judge"),
        ("model.safetensors", None, "No such file"),
        ("tokenizer.json", None, "tokenizer"),
        ("config.json", '{"kind": "diffusion"}', "diffusion"),
        ("config.json", '{"kind": "judge", "vocab_size": 7}', "make it anew"),
        ("config.json", '{"kind": "judge", "format": 2, "vocab_size": 7, "depth": 3}', "depth"),
        ("config.json", '{"kind": "judge", "format": 2, "vocab_size": "seven"}', "truncated or foreign"),
        ("config.json", '{"kind": "judge", "format": 2, "vocab_size": 9}', "knows 9 words, but its tokenizer has 7"),
        ("config.json", '{"kind": "judge", "format": 2, "vocab_size": 7}', "state_dict"),
        ("model.safetensors", "", "truncated or foreign"),
        ("tokenizer.json", "{}", "tokenizer"),
    ],
)
def test_a_bad_folder_is_refused(judge: JudgeLM, tmp_path: Path, name: str, content: str | None, said: str) -> None:
    judge.save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        JudgeLM.from_pretrained(tmp_path)


def test_words_are_read_one_by_one_as_all_at_once(judge: JudgeLM) -> None:
    t = judge.tokenizer
    ids = torch.tensor([[t.start_id, 4, 5, 6, 4], [t.start_id, 6, 6, 5, t.unk_id]])
    whole = judge.hidden(ids)
    first, past = judge.step(judge.placed(judge.embedding(ids[:, :2])))
    torch.testing.assert_close(first, whole[:, :2])
    for place in (2, 3):
        state, past = judge.step(judge.placed(judge.embedding(ids[:, place, None]), place), past)
        torch.testing.assert_close(state, whole[:, place, None])
    both, _ = judge.step(judge.placed(judge.embedding(ids[:, 2:]), 2), [each[:, :, :, :2] for each in past])
    torch.testing.assert_close(both, whole[:, 2:])


def test_the_longest_sentence_is_scored_and_a_longer_one_refused(judge: JudgeLM) -> None:
    assert fluency(judge, ["a " * 10]) > 0
    with pytest.raises(UserError, match=r"A sentence has 13 tokens.*at most 12"):
        fluency(judge, ["a " * 11])
    with pytest.raises(UserError, match="at least one text"):
        fluency(judge, [])
    with pytest.raises(UserError, match="START and END"):
        judge.score([[0]])


@pytest.mark.parametrize("bad", [{"width": 9, "heads": 2}, {"layers": 0}, {"dropout": 1.0}, {"max_length": 1}])
def test_impossible_shapes_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError):
        JudgeConfig(7, **bad)  # type: ignore[arg-type]


def encode(texts: list[str], tokenizer: Tokenizer) -> EncodedCorpus:
    sentences = [tokenizer.encode_sentence(text) for text in texts]
    flat = torch.tensor([i for s in sentences for i in s], dtype=torch.int32)
    offsets = torch.tensor([0, *itertools.accumulate(len(s) for s in sentences)])
    meta = EncodedMeta(1, "train", "", tokenizer.fingerprint, 12, len(texts), len(flat))
    return EncodedCorpus(flat, offsets, torch.arange(len(texts)), meta)


# Of one length, so that batches of like length are all alike and little noise remains.
TEXTS = ["a b c", "a c b", "b a c", "c b a"]


@pytest.fixture
def corpus(tokenizer: Tokenizer) -> tuple[EncodedCorpus, EncodedCorpus, Tokenizer]:
    return encode(TEXTS * 16, tokenizer), encode(TEXTS * 2, tokenizer), tokenizer


TINY = {"width": 16, "layers": 1, "heads": 2, "max_length": 12, "dropout": 0.0, "batch_tokens": 64, "device": "cpu"}


def test_training_nears_the_entropy_and_keeps_the_best(
    corpus: tuple[EncodedCorpus, EncodedCorpus, Tokenizer], tmp_path: Path
) -> None:
    train, dev, tokenizer = corpus
    seen: list[JudgeProgress] = []
    config = JudgeTrainConfig(**TINY, epochs=30, lr=2e-2, warmup=5, out=str(tmp_path / "judge"))  # type: ignore[arg-type]
    judge = train_judge(train, dev, tokenizer, config, seen.append)
    # Four sentences of equal chance, four predicted tokens each.
    entropy = math.log(4) / 4
    assert entropy - 0.01 < seen[-1].best_nats < entropy + 0.05
    assert seen[-1].best_nats == min(report.dev_nats for report in seen)
    assert corpus_nats(judge, dev) == pytest.approx(seen[-1].best_nats)
    saved = fluency(JudgeLM.from_pretrained(tmp_path / "judge"), TEXTS)
    assert saved == pytest.approx(seen[-1].best_nats, abs=0.01)


def test_training_repeats_with_its_seed(corpus: tuple[EncodedCorpus, EncodedCorpus, Tokenizer]) -> None:
    config = JudgeTrainConfig(**{**TINY, "dropout": 0.2}, epochs=2, lr=1e-2, warmup=1)  # type: ignore[arg-type]
    one, two = (train_judge(*corpus, config).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_that_gets_worse_returns_its_best(tokenizer: Tokenizer) -> None:
    """Training on other sentences than dev's overfits at once."""
    seen: list[JudgeProgress] = []
    config = JudgeTrainConfig(**TINY, epochs=8, lr=1e-2, warmup=1)  # type: ignore[arg-type]
    dev = encode(["b c a"], tokenizer)
    judge = train_judge(encode(TEXTS * 16, tokenizer), dev, tokenizer, config, seen.append)
    assert [report.at.epoch for report in seen] == list(range(1, 9))
    assert seen[-1].dev_nats > seen[-1].best_nats == min(report.dev_nats for report in seen)
    assert corpus_nats(judge, dev) == pytest.approx(seen[-1].best_nats)


def test_training_keeps_its_time_limit_and_refuses_long_sentences(
    corpus: tuple[EncodedCorpus, EncodedCorpus, Tokenizer],
) -> None:
    seen: list[JudgeProgress] = []
    limited = JudgeTrainConfig(**TINY, epochs=1e6, minutes=0.1 / 60)  # type: ignore[arg-type]
    train_judge(*corpus, limited, seen.append)
    assert 0.5 < seen[-1].at.fraction <= 1 and seen[-1].at.seconds < 2
    with pytest.raises(UserError, match="A train sentence has 5 tokens"):
        train_judge(*corpus, JudgeTrainConfig(**{**TINY, "max_length": 4}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="epochs must be above 0, not 0"):
        JudgeTrainConfig(**TINY, epochs=0)  # type: ignore[arg-type]


def test_config_on_disk_is_plain_json(judge: JudgeLM, tmp_path: Path) -> None:
    judge.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["kind"] == "judge" and values["vocab_size"] == judge.tokenizer.vocab_size
