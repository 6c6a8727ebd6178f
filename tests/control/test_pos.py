"""Parts of speech: Bayes' rule on the marginals, the table's counts, and bad input."""

import json

import pytest
import torch

from diffusion_lm.annotate.base import Tagger
from diffusion_lm.cli import main
from diffusion_lm.control.base import Latents
from diffusion_lm.control.pos import Pos
from diffusion_lm.control.tag_table import TagTable, TagTableConfig
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.pos_targets import read_pos_targets
from diffusion_lm.training.tags import count_tags, smoothed, table_of


class ByCase(Tagger):
    """Capitalised words are names, marks are marks, the rest are nouns."""

    labels = ("NOUN", "PROPN", "PUNCT")

    def tag(self, sentences):
        return [
            ["PUNCT" if not w.isalnum() else "PROPN" if w[0].isupper() else "NOUN" for w in words]
            for words in sentences
        ]


def about(fingerprint="x"):
    return TagTableConfig(list(ByCase.labels), "by case", 1, 1.0, fingerprint)


def table(v=7, fingerprint="x"):
    noise = torch.Generator().manual_seed(0)
    log_p = torch.randn(v, 3, generator=noise).log_softmax(-1)
    after, before = torch.randn(2, 4, v, 3, generator=noise).log_softmax(-1)
    return TagTable(about(fingerprint), log_p, after, before)


def test_reweighting_is_bayes_rule_at_the_words_and_nothing_elsewhere():
    known = table()
    control = Pos("PROPN NOUN", known)
    logits = torch.randn(2, 5, 7).log_softmax(-1)
    z = torch.zeros(2, 5, 3)
    out = control.reweight(logits, Latents(z, torch.ones(2), z[..., 0] == 0, z, logits, z[0]))
    # p(t | w, left) p(t | w, right) / p(t | w); PROPN is tag 1, NOUN 0, the edge of the sentence 3.
    for position, left, tag, right in ((1, 3, 1, 0), (2, 1, 0, 3)):
        p_tag = (
            known.after[left, :, tag].exp() * known.before[right, :, tag].exp() / known.log_p[:, tag].exp()
        )
        joint = logits[:, position].exp() * p_tag
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
    counts = count_tags(["the Food . the"], lm, ByCase())
    the, food = lm.tokenizer.encode("the food")
    assert counts.alone[the].tolist() == [2, 0, 0]
    assert counts.after[3, the, 0] == 1 and counts.after[2, the, 0] == 1
    assert counts.before[1, the, 0] == 1 and counts.before[3, the, 0] == 1
    known = table_of(counts, about(), 0.1)
    for log_p in known.tensors().values():
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(log_p.shape[:-1]))
    # A neighbour that was never seen says nothing: what is known of the word alone stays.
    torch.testing.assert_close(known.after[0, food], known.log_p[food])


def test_a_model_with_a_table_writes_as_many_words_as_tags(lm, tmp_path):
    counts = count_tags(["the food is cheap .", "a pub ."], lm, ByCase())
    assert counts.alone.sum() == 8
    folder = tmp_path / "lm"
    lm.save_pretrained(folder)
    table_of(counts, about(lm.fingerprint), 0.1).save_pretrained(folder / "controls" / "pos")
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
    table().save_pretrained(tmp_path)
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
    first, second = read_pos_targets(path)
    assert (first.tags, first.human, str(second)) == ("DET NOUN", "The pub", "3: NOUN PUNCT")


@pytest.mark.parametrize(
    "line", ["[]", '{"pos": "NOUN"}', "{", '{"pos": ["END"]}', '{"pos": ["X"], "words_": []}']
)
def test_a_broken_line_of_targets_is_named(tmp_path, line):
    path = tmp_path / "pos.jsonl"
    path.write_text('{"pos": ["NOUN"]}\n' + line)
    with pytest.raises(UserError, match=r"Line 2 of .* is no target"):
        read_pos_targets(path)


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
