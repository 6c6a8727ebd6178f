import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.annotate.trees import (
    Span,
    bracket_f1,
    chart_of,
    read_tree,
    spans_of,
    split_chain,
    tree_of,
    without_words,
    word_of,
    write_tree,
)
from diffusion_lm.common import UserError

PUB = "(S (NP (DT the) (NN pub)) (VP (VBZ closes)) (. .))"
CHAINS = st.lists(st.sampled_from(["S", "NP", "VP"]), min_size=1, max_size=3).map("+".join)


@st.composite
def charts(draw):
    """A sentence's length and a chart: of a random binary tree, some of the spans."""
    size = draw(st.integers(1, 8))
    chart = {(0, size): draw(CHAINS)}
    todo = [(0, size)]
    while todo:
        start, stop = todo.pop()
        if (start, stop) not in chart and draw(st.booleans()):
            chart[start, stop] = draw(CHAINS)
        if stop - start > 1:
            middle = draw(st.integers(start + 1, stop - 1))
            todo += [(start, middle), (middle, stop)]
    return size, chart


@given(charts())
def test_chart_to_tree_to_chart_is_the_identity(case):
    size, chart = case
    words, tags = [f"w{i}" for i in range(size)], [f"T{i}" for i in range(size)]
    tree = tree_of(words, tags, chart)
    assert chart_of(tree) == chart
    assert tree.leaves() == words
    assert [tag for _, tag in tree.pos()] == tags
    again = read_tree(write_tree(tree))
    assert again == tree
    assert tree_of(words, tags, chart_of(again)) == tree


def test_spans_join_unary_chains_and_leave_tags_out():
    tree = read_tree("(S (VP (VB Go) (PP (IN to) (NP (NP (NN bed))))))")
    assert spans_of(tree) == [Span(0, 3, "S+VP"), Span(1, 3, "PP"), Span(2, 3, "NP+NP")]
    assert split_chain("S+VP") == ["S", "VP"]


def test_a_root_without_meaning_goes_and_any_word_stays():
    assert read_tree(f"( {PUB})") == read_tree(f"(TOP {PUB})") == read_tree(PUB)
    assert read_tree("(NP (DT _) (NN _))").leaves() == ["_", "_"]
    assert without_words(read_tree(f"(S (NP -LRB- {PUB}) x)")) == (
        "(S (NP _ (S (NP (DT _) (NN _)) (VP (VBZ _)) (. _))) _)"
    )


def test_a_word_that_is_a_backslash_escapes_no_bracket() -> None:
    tree = tree_of(["a", "\\"], ["DT", "ADD"], {(0, 2): "NP"})
    again = read_tree(write_tree(tree))
    assert again == tree and [word_of(leaf) for leaf in again.leaves()] == ["a", "\\"]


def test_round_brackets_as_words_survive():
    tree = tree_of(["(", "L2", ")"], ["-LRB-", "NN", "-RRB-"], {(0, 3): "PRN"})
    assert [word_of(leaf) for leaf in read_tree(write_tree(tree)).leaves()] == ["(", "L2", ")"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(S (NP the)", "character 12"),
        ("(S (NP the)) x", "character 14"),
        ("", "character 1"),
        ("(NP )", "holds no word"),
        ("(S (NP the) ( (VP goes)))", "label ''"),
        ("(S+VP (VB go))", "without +"),
    ],
)
def test_malformed_brackets_are_quoted_and_the_place_is_named(text, said):
    with pytest.raises(UserError) as error:
        read_tree(text)
    assert repr(text) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "chart", [{}, {(0, 3): "S", (0, 2): "NP", (1, 3): "VP"}, {(0, 3): "S", (2, 4): "NP"}, {(0, 2): "S"}]
)
def test_a_chart_that_is_no_tree_is_refused(chart):
    with pytest.raises(UserError):
        tree_of(["a", "b", "c"], ["X"] * 3, chart)


def test_bracket_f1_counts_labels_of_chains_and_repeats():
    gold = read_tree("(S (VP (VB Go) (NP (NP (NN bed)))))")  # S, VP, NP, NP
    guess = read_tree("(S (VP (VB Go) (NP (NN bed))))")  # S, VP, NP
    assert bracket_f1([gold], [gold]) == 1
    assert bracket_f1([gold], [guess]) == pytest.approx(2 * 3 / 7)
    with pytest.raises(ValueError):
        bracket_f1([gold], [])


def test_a_tree_is_refused_by_its_size_before_it_is_built():
    flat, deep = "(S" + " (NN a)" * 600 + ")", "(S " * 101 + "a" + ")" * 101
    for text in (flat, deep, flat * 10_000, "(S " * 1_000_000, "(S" + " (A" * 200_000):
        with pytest.raises(UserError, match="512 words, 100 brackets") as error:
            read_tree(text)
        assert len(str(error.value)) < 500
    assert len(read_tree(flat, most_leaves=600).leaves()) == 600
    assert read_tree(deep[3:-1]).height() == 101
    with pytest.raises(UserError, match="at most 2 words"):
        read_tree(PUB, most_leaves=2)


def test_an_error_does_not_repeat_a_long_tree():
    with pytest.raises(UserError) as error:
        read_tree("(S " + "()" * 10_000 + ")")
    assert len(str(error.value)) < 500
