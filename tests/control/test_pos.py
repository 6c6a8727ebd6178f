"""Parts of speech: Bayes' rule on the marginals, the table's counts, and bad input."""

import json
from dataclasses import replace

import pytest
import torch

from diffusion_lm.annotate.tagger import Tagger
from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.control.control import Latents
from diffusion_lm.control.pos import Pos
from diffusion_lm.control.tables import TagTable, smoothed
from diffusion_lm.evaluation.targets import (
    POS_EXAMPLE,
    SPAN_EXAMPLE,
    pos_target,
    read_records,
    span_target,
)
from diffusion_lm.training.tables import count_tags


class ByCase(Tagger):
    """Capitalised words are names, marks are marks, the rest are nouns."""

    labels = ("NOUN", "PROPN", "PUNCT")

    def tag(self, sentences):
        return [
            ["PUNCT" if not w.isalnum() else "PROPN" if w[0].isupper() else "NOUN" for w in words]
            for words in sentences
        ]


def counted(texts, lm, fingerprint="x"):
    words = [text.split() for text in texts]
    sentences = zip(map(lm.tokenizer.encode, texts), ByCase().tag(words), strict=True)
    return count_tags(sentences, ByCase.labels, lm.vocab_size, tagger="by case", smoothing=0.1, lm=fingerprint)


def test_reweighting_is_bayes_rule_at_the_words_and_nothing_elsewhere(lm):
    known = counted(["the Food . the", "Food food", "a pub ."], lm)
    control = Pos("PROPN NOUN", table=known, weight=1.0)
    logits = torch.randn(2, 5, lm.vocab_size).log_softmax(-1)
    z = torch.zeros(2, 5, 3)
    out = control.reweight(logits, Latents(z, torch.ones(2), z[..., 0] == 0, z, logits, z[0]))
    # p(t | w, left) p(t | w, right) / p(t | w), normalised; PROPN is tag 1, NOUN 0, the edge of the sentence 3.
    for position, left, tag, right in ((1, 3, 1, 0), (2, 1, 0, 3)):
        sides = known.beside(known.after, left) + known.beside(known.before, right) - known.log_p
        of_tags = sides.exp() / sides.exp().sum(-1, keepdim=True)
        joint = logits[:, position].exp() * of_tags[:, tag]
        torch.testing.assert_close(out[:, position].softmax(-1), joint / joint.sum(-1, keepdim=True))
    torch.testing.assert_close(out[:, [0, 3, 4]], logits[:, [0, 3, 4]])


def test_success_is_the_share_of_right_tags_and_strict_about_the_number():
    control = Pos("PROPN NOUN PUNCT", tagger=ByCase)
    found = control.success(["Zizzi pub.", "pub pub.", "Zizzi pub. pub", ""])
    torch.testing.assert_close(found, torch.tensor([1, 2 / 3, 3 / 4, 0]))


def test_smoothed_counts_are_a_distribution_and_lean_on_the_prior():
    counts = torch.tensor([[8.0, 2, 0], [0, 0, 0]])
    p = smoothed(counts, counts.sum(0) / counts.sum(), 1e-3).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(2))
    torch.testing.assert_close(p[:, :2], torch.tensor([[0.8, 0.2]] * 2), atol=1e-3, rtol=0)
    assert bool((p > 0).all())


def test_counts_know_the_tags_on_both_sides(lm):
    known = counted(["the Food . the"], lm)
    the, food = lm.tokenizer.encode("the food")
    assert known.alone[the].tolist() == [2, 0, 0] and known.config.certainty == 1
    # Tag in front or behind (3 is the edge), word, tag, count.
    assert [3, the, 0, 1] in known.after.tolist() and [2, the, 0, 1] in known.after.tolist()
    assert [1, the, 0, 1] in known.before.tolist() and [3, the, 0, 1] in known.before.tolist()
    for log_p in (known.log_p, known.beside(known.after, 3), known.beside(known.before, 1)):
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(lm.vocab_size))
    # A neighbour that was never seen says nothing: what is known of the word alone stays.
    torch.testing.assert_close(known.beside(known.after, 1)[food], known.log_p[food])
    # A tag that is free costs nothing.
    assert not known.columns([None]).any()


def test_a_model_with_a_table_writes_as_many_words_as_tags(lm, tmp_path):
    folder = tmp_path / "lm"
    lm.save_pretrained(folder)
    counted(["the food is cheap .", "a pub ."], lm, lm.fingerprint).save_pretrained(folder / "controls" / "pos")
    loaded = type(lm).from_pretrained(folder, "cpu")
    out = loaded.generate(2, Pos("NOUN NOUN PUNCT"), steps=2)
    assert [len(words) for words in out.words] == [3, 3]
    with pytest.raises(UserError, match=r"no tag FOO; the tags are NOUN, PROPN, PUNCT\."):
        loaded.generate(1, Pos("NOUN FOO"), steps=1)
    with pytest.raises(UserError, match="No tag is given"):
        loaded.generate(1, Pos(" "), steps=1)


def test_a_table_of_another_model_or_none_is_refused(lm, tmp_path):
    with pytest.raises(UserError, match="holds no table of tags"):
        TagTable.from_pretrained(tmp_path, "x")
    counted(["the pub"], lm).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="another language model"):
        TagTable.from_pretrained(tmp_path, "y")
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="truncated or foreign"):
        TagTable.from_pretrained(tmp_path, "x")


def test_targets_drop_start_end_and_the_line_break(tmp_path):
    path = tmp_path / "pos.jsonl"
    path.write_text(
        '{"pos": ["START", "DET", "NOUN", "PUNCT", "END"], "words_": ["START", "The", "pub", "\\n", "END"]}\n'
        '\n{"pos": ["NOUN", "PUNCT"]}\n'
    )
    first, second = read_records(path, pos_target, POS_EXAMPLE)
    assert (first.value, first.words, str(second)) == ("DET NOUN", ("The", "pub"), "3: NOUN PUNCT")


@pytest.mark.parametrize("line", ["[]", '{"pos": "NOUN"}', "{", '{"pos": ["END"]}', '{"pos": ["X"], "words_": []}'])
def test_a_broken_line_of_targets_is_named(tmp_path, line):
    path = tmp_path / "pos.jsonl"
    path.write_text('{"pos": ["NOUN"]}\n' + line)
    with pytest.raises(UserError, match=r"Line 2 of .* is no target"):
        read_records(path, pos_target, POS_EXAMPLE)


def test_spans_of_a_file_count_from_1_and_end_before_the_line_break(tmp_path):
    path = tmp_path / "spans.jsonl"
    path.write_text('{"spans": [[0, 1, "NP"], [1, 2, "S::VP"]], "words_": ["START", "The", "pub", "\\n", "END"]}\n')
    (target,) = read_records(path, span_target, SPAN_EXAMPLE)
    assert target.value == "1:2:NP 2:2:S+VP"
    path.write_text('{"spans": [[0, "NP"]]}')
    with pytest.raises(UserError, match=r"Line 1 of .* is not .first, last, label"):
        read_records(path, span_target, SPAN_EXAMPLE)


def test_the_command_line_writes_and_judges_tags(capsys):
    assert main(["generate", "--n", "2", "--steps", "4", "--pos", "DET PROPN AUX ADJ PUNCT", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(record["words"]) for record in records] == [5, 5]
    assert all(record["controls"][0]["control"].startswith("pos=DET") for record in records)
    assert main(["generate", "--pos", "DET FOO"]) == 2
    assert "There is no tag FOO; the tags are ADJ," in capsys.readouterr().err
    assert main(["generate", "--pos", "DET NOUN", "--length", "3"]) == 2
    assert "Two lengths contradict each other" in capsys.readouterr().err


def test_info_lists_the_tags(capsys):
    assert main(["info", "e2e-small"]) == 0
    assert "PROPN" in capsys.readouterr().out


def test_evidence_is_the_mean_likelihood_of_the_tags(lm):
    known = counted(["the Food . the", "Food food", "a pub ."], lm)
    control = Pos("PROPN NOUN", table=known, weight=1.0, evidence=0.5)
    logits = torch.randn(2, 5, lm.vocab_size)
    z = torch.zeros(2, 5, 3)
    found = control.log_evidence(logits, Latents(z, torch.ones(2), z[..., 0] == 0, z, logits, z[0]))
    likelihood = known.columns(["PROPN", "NOUN"]).exp()
    mean = (logits[:, 1:3].softmax(-1) * likelihood).sum(-1)
    torch.testing.assert_close(found, 0.5 * mean.log().sum(-1))
    assert replace(control, evidence=0.0).log_evidence(logits, None) is None
