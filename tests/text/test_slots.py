"""Slot errors: the phrases that say a value, what hides a phrase, and counts known by hand."""

from __future__ import annotations

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.text.slots import VALUES, SlotErrors, as_said, sayings, slot_error_rate, slot_errors

NONE = SlotErrors(missing=0, added=0, wrong=0)

SAYS = [
    ("Type", "coffee shop", ["A coffee-shop.", "It is a café.", "the coffee shops"]),
    ("Type", "pub", ["It is a PUB."]),
    ("Type", "restaurant", ["A restaurant nearby."]),
    ("area", "city centre", ["in the city-center", "in the centre of town", "in the heart of the city"]),
    ("area", "riverside", ["on the river", "in the Riverside area", "by the river bank", "outside of the city centre"]),
    ("customer rating", "1 out of 5", ["rated 1 out of 5", "a one-star rating", "rated 1/5", "poorly rated"]),
    ("customer rating", "low", ["low customer rating", "its ratings are low", "not highly rated", "low-rated"]),
    ("customer rating", "3 out of 5", ["3 out of 5 stars", "three stars", "an average rating"]),
    ("customer rating", "average", ["Customers rate it as average.", "averagely rated", "an average place"]),
    ("customer rating", "5 out of 5", ["five out of five", "5-star", "5 star", "customer rating: 5", "highly rated"]),
    ("customer rating", "high", ["It has excellent reviews.", "with a high customer rating", "rated highly"]),
    ("family friendly", "yes", ["kid friendly", "child-friendly", "It welcomes families.", "good for the whole family"]),
    ("family friendly", "no", ["not family friendly", "no kids", "adults only", "isn't kid-friendly", "non-family-friendly"]),
    ("family friendly", "no", ["Children are not welcome.", "It does not cater to families.", "unsuitable for children"]),
    ("food", "English", ["British food", "english"]),
    ("food", "Fast food", ["fast-food", "burgers"]),
    ("food", "Japanese", ["sushi"]),
    ("near", "Café Rouge", ["near Cafe Rouge", "by café rouge"]),
    ("name", "The Eagle", ["the eagle", "Eagle", "The Eagle's menu"]),
    ("name", "Browns Cambridge", ["Brown's Cambridge"]),
    ("name", "The Crooked Billet", ["at the crooked billet"]),
    ("price", "cheap", ["cheap", "low-priced", "inexpensive", "not expensive", "Prices are low."]),
    ("price", "less than £20", ["less than £20", "under 20 pounds", "for £20 or less", "low price range"]),
    ("price", "more than £30", ["over £30", "£30 and up", "more than thirty pounds", "expensive"]),
    ("price", "high", ["The price range is high.", "high-priced", "above average prices", "not cheap"]),
    ("price", "moderate", ["moderately priced", "mid-range", "average prices", "moderately expensive"]),
    ("price", "£20-25", ["£20-25", "between £20 and £25", "£20 - £25", "20 to 25 pounds", "prices are£20-25"]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "text"), [(*said, text) for *said, texts in SAYS for text in texts])
def test_phrases_say_their_value_alone(field: str, value: str, text: str) -> None:
    assert slot_errors({field: value}, text) == NONE
    assert slot_errors({}, text).added == (value in VALUES[field])


SENTENCES = {
    "name": "{} is here.", "Type": "It is a {}.", "area": "It lies in the {}.", "near": "Find it near {}.",
    "food": "It serves {}.", "customer rating": "It has a customer rating of {}.", "price": "The price range is {}.",
}  # fmt: skip
FRIENDLY = {"yes": "It is family friendly.", "no": "It is not family friendly."}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in VALUES.items() for value in values])
def test_every_value_of_the_corpus_is_said_by_itself_in_any_case(field: str, value: str) -> None:
    text = SENTENCES[field].format(value) if field in SENTENCES else FRIENDLY[value]
    for spelled in (text, text.upper()):
        assert slot_errors({field: value}, spelled) == NONE
        assert slot_errors({}, spelled) == SlotErrors(0, 1, 0)


FIELDS = {
    "name": "The Rice Boat", "Type": "pub", "food": "Indian", "price": "high", "customer rating": "average",
    "area": "riverside", "family friendly": "no", "near": "Raja Indian Cuisine",
}  # fmt: skip
RIGHT = (
    "The Rice Boat is a pub near Raja Indian Cuisine in the riverside area. It serves Indian food, has a high price range "
    "and an average customer rating, and is not family-friendly."
)


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [
        ("", "", NONE),
        ("serves Indian food, ", "", SlotErrors(1, 0, 0)),  # the name says no food
        ("Indian food", "Thai food", SlotErrors(1, 0, 0)),
        ("Indian food", "Italian food", SlotErrors(0, 0, 1)),
        ("Indian food", "Indian and Italian food", SlotErrors(0, 1, 0)),
        ("is not", "is", SlotErrors(0, 0, 1)),
        ("near Raja Indian Cuisine", "near Café Rouge", SlotErrors(0, 0, 1)),
        (" near Raja Indian Cuisine", "", SlotErrors(1, 0, 0)),
        ("a high price", "an average price", SlotErrors(0, 0, 1)),
        ("an average customer rating", "a low customer rating of 1 out of 5", SlotErrors(0, 0, 1)),
        (RIGHT, "The food is good.", SlotErrors(8, 0, 0)),
    ],
)
def test_errors_by_hand(old: str, new: str, errors: SlotErrors) -> None:
    assert slot_errors(FIELDS, RIGHT.replace(old, new)) == errors


def test_a_phrase_within_a_longer_one_or_a_name_says_nothing() -> None:
    assert slot_errors({"near": "Café Rouge"}, "near Café Rouge") == NONE
    assert slot_errors({"near": "Burger King"}, "near Burger King") == NONE
    assert slot_errors({"price": "£20-25"}, "from £20 to £25") == NONE
    assert slot_errors({"family friendly": "no"}, "no kids allowed, not suitable for families with children") == NONE


def test_an_average_of_numbers_is_no_level() -> None:
    assert slot_errors({"price": "more than £30"}, "The average price is over £30.") == NONE
    assert slot_errors({"customer rating": "1 out of 5"}, "an average rating of 1 out of 5") == NONE


def test_levels_go_with_their_own_noun() -> None:
    text = "It has a low customer rating and high prices."
    assert slot_errors({"customer rating": "low", "price": "high"}, text) == NONE
    assert slot_errors({"customer rating": "high", "price": "cheap"}, text) == SlotErrors(0, 0, 2)


def test_what_is_ambiguous_means_what_was_asked() -> None:
    for price in ("cheap", "less than £20"):
        assert slot_errors({"price": price}, "It is cheap.") == NONE
    assert slot_errors({}, "It is cheap.") == SlotErrors(0, 1, 0)
    assert slot_errors({"near": "The Rice Boat"}, "by The Rice Boat") == NONE
    assert slot_errors({"name": "The Rice Boat"}, "at The Rice Boat") == NONE


def test_the_rate_is_of_the_fields_that_were_asked() -> None:
    fields = [FIELDS, {"name": "Zizzi", "food": "Thai"}]
    assert slot_error_rate(fields, [RIGHT, "Zizzi serves Thai food."]) == 0
    assert slot_error_rate(fields, [RIGHT, "A cheap pub."]) == pytest.approx(100 * 4 / 10)
    assert slot_error_rate([{"food": "Thai"}], ["A cheap pub."]) == 300


@pytest.mark.parametrize(
    ("fields", "text", "said"),
    [
        (FIELDS, RIGHT, FIELDS),
        (
            {"name": "Zizzi", "food": "Thai", "area": "riverside"},
            "Zizzi serves Thai food.",
            {"name": "Zizzi", "food": "Thai"},
        ),
        ({"food": "Thai", "price": "less than £20"}, "Cheap Thai food.", {"food": "Thai", "price": "less than £20"}),
        ({"price": "high", "name": "Zizzi"}, "Zizzi is cheap.", {"price": "cheap", "name": "Zizzi"}),
        ({"name": "Zizzi"}, "Zizzi is a pub.", {"name": "Zizzi", "Type": "pub"}),
        ({"name": "Zizzi"}, "A nice place.", {}),
    ],
)
def test_the_values_that_a_text_says_stand_for_those_that_it_was_to_say(
    fields: dict[str, str], text: str, said: dict[str, str]
) -> None:
    assert list(as_said(fields, text).items()) == list(said.items())
    assert slot_errors(as_said(fields, text), text) == NONE


def test_what_cannot_be_counted_is_one_sentence() -> None:
    with pytest.raises(UserError, match="the fields name, Type"):
        slot_errors({"colour": "blue"}, "It is blue.")
    for fields, texts in (([], []), ([{}], ["a"]), ([{"food": "Thai"}], [])):
        with pytest.raises(UserError, match="one text for each"):
            slot_error_rate(fields, texts)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in VALUES.items() for value in values])
def test_what_an_automaton_holds_a_text_to_is_read_as_the_value(field: str, value: str) -> None:
    for phrase in sayings(field, value):
        for text in (f"It is {phrase}.", f"Well, {phrase} and that is all.", f"A place with {phrase} here."):
            found = slot_errors({field: value}, text)
            assert (found.missing, found.wrong) == (0, 0), phrase
