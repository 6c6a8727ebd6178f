"""Parts of speech: the table's counts, Bayes' rule on the marginals, and the evidence of the tags."""

import torch

from diffusion_lm.annotate.tagger import Tagger
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.pos import Pos
from diffusion_lm.control.tables import TagTable, count_tags, smoothed
from diffusion_lm.generation.batch import Batch
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import Asked, lay_out
from tests.control.conftest import Hosted, programs


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
    return count_tags(
        sentences, ByCase.labels, lm.tokenizer.vocab_size, tagger="by case", smoothing=0.1, lm=fingerprint
    )


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
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(lm.tokenizer.vocab_size))
    # A neighbour that was never seen says nothing: what is known of the word alone stays.
    torch.testing.assert_close(known.beside(known.after, 1)[food], known.log_p[food])
    # A tag that is free costs nothing.
    assert not known.columns([None]).any()


def test_reweighting_is_bayes_rule_and_evidence_the_mean_likelihood_of_the_tags(lm):
    known = counted(["the Food . the", "Food food", "a pub ."], lm)
    host, control = Hosted(lm, known), Pos("PROPN NOUN", weight=1.0, evidence=0.5)
    (program,) = programs(control, host)
    assert program.canvas.words == 2 and not program.energies and program.automaton is None
    (columns,) = program.columns
    # p(t | w, left) p(t | w, right) / p(t | w), normalised; PROPN is tag 1, NOUN 0, the edge of the sentence 3.
    for position, left, tag, right in ((0, 3, 1, 0), (1, 1, 0, 3)):
        sides = known.beside(known.after, left) + known.beside(known.before, right) - known.log_p
        torch.testing.assert_close(columns[position].exp(), (sides.exp() / sides.exp().sum(-1, keepdim=True))[:, tag])

    layout, generator = lay_out(lm, [program.canvas], torch.Generator()), torch.Generator().manual_seed(0)
    asked = Asked([program], [0])
    batch = Batch(lm, asked, layout, Decoding().fitted(asked.programs, True), generator)
    assert not batch.columns[0, [0, 3]].any() and torch.equal(batch.columns[0, 1:3], columns)
    logits = torch.randn(1, 4, lm.tokenizer.vocab_size)
    mean = (logits[0, 1:3].softmax(-1) * columns.exp()).sum(-1)
    torch.testing.assert_close(batch._evidence(logits)[0], 0.5 * mean.log().sum())

    (weighted,) = programs(2 * control, host)
    torch.testing.assert_close(weighted.columns[0], 2 * columns)
    assert weighted.evidence[0].power == 1 and torch.equal(weighted.evidence[0].columns, columns)
    assert not programs(Pos("PROPN NOUN", evidence=0.0), host)[0].evidence


def test_each_sentence_leans_on_leaves_that_have_the_tags(lm):
    tags = "DET NOUN AUX DET ADJ NOUN PUNCT"
    table = lm.asset(LeafTable)
    index = torch.tensor([table.config.universal.index(tag) for tag in tags.split()])
    kinds = {(kind, tag) for kind, tag, _ in table.emits.tolist()}
    for row in table.chain.sample(index, 20, 0.3, torch.Generator().manual_seed(0)).tolist():
        assert all((kind, tag) in kinds for kind, tag in zip(row, index.tolist(), strict=True))
    plain, *leaning = (
        programs(Pos(tags, lean=lean, temperature=1.0), lm, 9)[row].columns[0]
        for lean, row in ((0, 0), (0.1, 1), (0.1, 2))
    )
    torch.testing.assert_close(plain, 0.7 * lm.asset(TagTable).columns(tags.split()))
    assert all((held - plain).abs().max() > 0 for held in leaning)


def test_a_sentence_has_as_many_words_as_tags(lm):
    assert [len(words) for words in lm.generate(2, Pos("NOUN NOUN PUNCT"), steps=2).words] == [3, 3]


def test_success_is_the_share_of_right_tags_and_strict_about_the_number():
    control = Pos("PROPN NOUN PUNCT", tagger=ByCase)
    found = control.success(["Zizzi pub.", "pub pub.", "Zizzi pub. pub", ""])
    torch.testing.assert_close(found, torch.tensor([1, 2 / 3, 3 / 4, 0]))
