"""Slot errors of E2E: which fields a text leaves out, makes up, or says wrongly.

A value is said by phrases, as in the script of Dušek, Howcroft and Rieser 2019, "Semantic Noise Matters for Neural Natural
Language Generation" (github.com/tuetschek/e2e-cleaning); these phrases were read off E2E's training and dev texts. A phrase
within a longer one of its field, or within a name, says nothing ("not family friendly", "Café Rouge"), and one that can mean
several values ("cheap": cheap, less than £20) means the one that was asked. People make errors too: 8.6 of 100 fields of the
dev texts are missing, added or wrong, 11.4 by the script of 2019, which knows fewer phrases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from diffusion_lm.common import UserError
from diffusion_lm.text.fields import FIELDS
from diffusion_lm.text.spacing import normal


class SlotErrors(NamedTuple):
    """Fields of one text; one that was asked counts as missing, as wrong, or, if its value and another are said, as added."""

    missing: int
    """Fields that were asked, and no value is said."""
    added: int
    """Fields of which a value is said that was not asked, though none was, or though the text says the one that was."""
    wrong: int
    """Fields that were asked, and only another value is said."""


def slot_errors(fields: Mapping[str, str], text: str) -> SlotErrors:
    """Compare a text with the values that it was to say, by canonical field name.

    As Dušek et al. count, a text that calls the place a restaurant though no Type was asked has added one.

    Raises:
        UserError: a field is not one of E2E's.
    """
    said = _said(normal(text), _known(fields))
    right = _right(fields, said)
    other = {field for field, values in said.items() if values - {fields.get(field)}}
    return SlotErrors(
        missing=len(fields.keys() - said.keys()),
        added=len(other & right) + len(other - fields.keys()),
        wrong=len(other & fields.keys() - right),
    )


def fields_said(fields: Mapping[str, str], text: str) -> set[str]:
    """The fields whose value a text says, another one beside it or not; a `UserError` if a field is not one of E2E's."""
    return _right(fields, _said(normal(text), _known(fields)))


def _right(fields: Mapping[str, str], said: Mapping[str, set[str]]) -> set[str]:
    return {field for field, value in fields.items() if value in said.get(field, ())}


def are_e2e(fields: Mapping[str, str]) -> bool:
    """Whether there are fields, and slot errors know them all."""
    return bool(fields) and fields.keys() <= set(FIELDS)


def as_said(fields: Mapping[str, str], text: str) -> dict[str, str]:
    """The values that a text says: of those that were to be said, else the first that it is read as.

    People leave out, add or change a tenth of what they were to say, and a model that learns to write what they wrote learns
    to do so too; Dušek et al. train on what the text says instead.

    Raises:
        UserError: a field is not one of E2E's.
    """
    said = _said(normal(text), _known(fields))
    read = {field: fields[field] if fields.get(field) in values else min(values) for field, values in said.items()}
    return {field: read[field] for field in dict.fromkeys((*fields, *FIELDS)) if field in read}


def _known(fields: Mapping[str, str]) -> Mapping[str, str]:
    if foreign := sorted(set(fields) - set(FIELDS)):
        raise UserError(f"Slot errors know the fields {', '.join(FIELDS)}, not {', '.join(foreign)}.")
    return fields


def slot_error_rate(fields: Sequence[Mapping[str, str]], texts: Sequence[str]) -> float:
    """Errors of all texts in percent of the fields that were asked; it may pass 100.

    Raises:
        UserError: no field is asked, there is not one text for each set of fields, or a field is not one of E2E's.
    """
    slots = sum(map(len, fields))
    if not slots or len(fields) != len(texts):
        raise UserError("A slot error rate needs one text for each set of fields, and at least one field.")
    return 100 * sum(sum(slot_errors(*each)) for each in zip(fields, texts, strict=True)) / slots


class _Match(NamedTuple):
    start: int
    end: int
    field: str
    value: str

    def hidden_by(self, other: _Match) -> bool:
        """Whether it is a part of the other and means nothing by itself."""
        longer = other.start <= self.start and self.end <= other.end and other[:2] != self[:2]
        return longer and other.field in (self.field, *_NAMES)


def _said(text: str, fields: Mapping[str, str]) -> dict[str, set[str]]:
    """The values that a text says, by field."""
    matches = {
        _Match(*found.span(), field, value)
        for field in FIELDS
        for phrase, values in _readings(field, fields.get(field)).items()
        for found in _compiled(phrase).finditer(text)
        for value in values
    }
    read: dict[tuple[int, int, str], list[_Match]] = {}
    for match in sorted(matches):
        if not any(match.hidden_by(other) for other in matches):
            # A name may be of the place or of one nearby, so it is read for both fields together.
            read.setdefault((*match[:2], "name" if match.field in _NAMES else match.field), []).append(match)
    said: dict[str, set[str]] = {}
    for each in read.values():
        for match in [match for match in each if fields.get(match.field) == match.value] or each[:1]:
            said.setdefault(match.field, set()).add(match.value)
    return said


@cache
def _readings(field: str, asked: str | None) -> dict[str, list[str]]:
    """The values that a phrase can mean, by phrase: of those that E2E has, and the one that is asked."""
    readings: dict[str, list[str]] = {}
    for value in dict.fromkeys((*VALUES[field], *([asked] if asked else ()))):
        for phrase in realisations(field, value):
            readings.setdefault(phrase, []).append(value)
    return readings


@cache
def _compiled(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!£)(?:(?<!\w)|(?=£))(?:{phrase})(?!\w)", re.IGNORECASE)


def realisations(field: str, value: str) -> list[str]:
    """The phrases that say a value of a field: regular expressions, for whole words in any case.

    A name, and a value that E2E does not have, are said by themselves; the article in front of a name may be left out.
    """
    itself = re.escape(value).replace(r"\ ", " ").replace("é", "[ée]").replace("s ", "'?s ")
    phrases = _PHRASES.get(field, {}).get(value) or [re.sub("^The ", "(?:The )?", itself)]
    return [phrase.replace(" ", r"(?:[\s-]+)") for phrase in phrases]


def sayings(field: str, value: str) -> list[str]:
    """Some plain phrases that say a value, the most usual first: what an automaton holds a text to.

    A value that is not in E2E is said by itself; "yes" and "no" by the name of the field, without and with a "not".
    """
    kinds = {"yes": [field], "no": [f"not {field}", f"non {field}"]}
    return _SAYINGS.get((field, value)) or kinds.get(value.lower()) or [value]


_FRIENDLY = [f"{who}{link}friendly" for who in ("family", "kid", "kids", "child", "children") for link in (" ", "-")]
_DEARLY = [
    "expensive",
    "high price",
    "high prices",
    "high-priced",
    "high priced",
    "price range is high",
    "prices are high",
]
_CHEAPLY = ["cheap", "inexpensive", "low price", "low prices", "low-priced", "low priced", "low cost"]
_MODERATELY = [
    "moderate price",
    "moderate prices",
    "moderately priced",
    "mid-priced",
    "average price",
    "average prices",
]
_SAYINGS: dict[tuple[str, str], list[str]] = {
    ("family friendly", "yes"): [*_FRIENDLY, "suitable for families", "suitable for children", "good for families"],
    ("family friendly", "no"): [*(f"not {each}" for each in _FRIENDLY), "not a family-friendly", "not a family friendly",
                                "non family-friendly", "adults only", "adult only"],
    ("price", "cheap"): _CHEAPLY,
    ("price", "less than £20"): ["less than £20", "under £20", *_CHEAPLY],
    ("price", "high"): _DEARLY,
    ("price", "more than £30"): ["more than £30", "over £30", "above £30", *_DEARLY],
    ("price", "moderate"): _MODERATELY,
    ("price", "£20-25"): ["£20-25", "£20-£25", "£20 to £25", *_MODERATELY],
    **{("customer rating", value): shared for shared, values in [
        (["5 out of 5", "five star", "5 star", "5-star", "high customer rating", "highly rated", "high rating",
          "customer rating is high", "excellent customer rating", "rated highly"], ("5 out of 5", "high")),
        (["3 out of 5", "three star", "3 star", "average customer rating", "average rating", "customer rating is average",
          "average customer ratings"], ("3 out of 5", "average")),
        (["1 out of 5", "one star", "1 star", "low customer rating", "poorly rated", "low rating", "customer rating is low",
          "poor customer rating"], ("1 out of 5", "low")),
    ] for value in values},
    ("area", "city centre"): ["city centre", "city center", "centre of the city", "center of the city"],
    ("area", "riverside"): ["riverside", "river"],
    ("food", "Fast food"): ["Fast food"],
}  # fmt: skip
"""By field and value; `slot_errors` reads each as that value, unless words before it turn it round, such as "not"."""

# -- phrases; a space stands for spaces and hyphens --------------------------------------------------------------------

_TURNS = r"and|but|with|only|while|whilst|though|although|for|out|one|two|three|four|five|not|no|non|\w+n't"


def _up_to(n: int, turns: str = "") -> str:
    """At most `n` words, none of which turns to something else."""
    return rf"(?: (?!(?:{_TURNS}{turns})\b)[^\W\d_][\w']*){{0,{n}}}"


_ISNT = r"(?:not|\w+n't)"
_NOT = rf"(?:{_ISNT}|isnt|non|none|no|never|un|without|cannot|bad)"

_COST = r"(?:pric(?:e[ds]?|ing|y)|costs?|(?:price )?range)"
_OF_RATING = r"|approval|rat\w+|review\w*|customers?"
_NO_RATING = r"(?! (?:approval|customer|rat|review))"


def _priced(level: str) -> list[str]:
    """Ways to say that prices are of a level, such as "high"."""
    return [
        rf"{level}{_up_to(1, _OF_RATING)} {_COST}(?: range)?{_NO_RATING}",
        rf"(?:pric(?:e[ds]?|ing)|costs?)(?: range)?:?{_up_to(3, _OF_RATING)} {level}{_NO_RATING}",
    ]


def _amount(number: str, word: str) -> str:
    return rf"(?:£ ?{number}|(?:{number}|{word}) ?(?:l|gbp|euros?|(?:british )?pounds?|dollars?|quid)|{number})"


_20, _25, _30 = _amount("20", "twenty"), _amount("25", "twenty five"), _amount("30", "thirty")
_MORE, _LESS = r"(?:higher|more|above|over)", r"(?:lower|less|cheaper|below|under)"

_CHEAP = [
    r"(?:relatively |fairly |quite )?(?:cheap(?:ly|er|est)?|inexpensive(?:ly)?)",
    rf"{_ISNT}(?: too| very| so| that)? (?:expensive|pricey)",
    r"low(?:er)? end",
    r"(?:on a |low )?budget",
    r"affordabl[ey]",
    rf"{_LESS}(?: than)?(?: the)? average {_COST}(?: range)?",
    rf"{_COST}{_up_to(3)} {_LESS}(?: than)? average",
    *_priced(r"(?:very )?(?:low(?:er|est|ly)?|cheap|affordable|inexpensive|small|bargain|reasonabl[ey])"),
]
_DEAR = [
    r"(?:very |more )?expensive(?:ly)?",
    "pricey",
    r"(?:high|upper|top) end",
    r"up ?(?:scale|market)",
    "costly",
    rf"{_ISNT}(?: very| the| exactly)? (?:cheap(?:est)?|inexpensive)",
    rf"{_MORE}(?: than)?(?: the)? average {_COST}(?: range)?",
    rf"{_COST}{_up_to(3)} {_MORE}(?: than)? average",
    *_priced(r"(?:very )?(?:high(?:er|est|ly)?|expensive|upper|steep|premium)"),
]
_MODERATE = [
    r"affordabl[ey]",
    rf"moderate(?:ly)?{_NO_RATING}",
    rf"mid(?:dle)? (?:of the )?(?:range|road){_NO_RATING}",
    r"(?:moderately|fairly|reasonably|averagely|somewhat|mildly) (?:expensive|cheap|inexpensive)",
    rf"{_ISNT}(?: too| very| so| that)? (?:expensive|cheap)",
    # "An average price of £30" is a mean.
    *(rf"{each}(?! (?:more|less|over|under))(?!{_up_to(4)} £?\d)" for each in _priced(r"average(?:ly)?")),
    *_priced(
        r"(?:moderate(?:ly)?|mid(?:dle)?|medium|intermediate(?:ly)?|reasonabl[ey]|fair(?:ly)?|decent(?:ly)?|ok(?:ay)?"
        r"|modest(?:ly)?|good|standard|normal|typical)"
    ),
]

_RATING = (
    r"(?:customer |guest |consumer |star )?"
    r"(?:rat(?:ed?|ings?)|review(?:s|ed)?|rank(?:s|ed|ings?)?|scor(?:es?|ed|ing)|satisfaction|service|approval|feedback"
    r"|reputation|quality|standards?)"
)
_OF_PRICE = r"|pric\w+|cost\w*|range|low\w*|poor\w*|average\w*|well|good|high\w*"
_NO_PRICE = r"(?! (?:pric|cost|range))"


def _rated(level: str) -> list[str]:
    """Ways to say that customers' ratings are of a level, such as "high"."""
    return [
        rf"{level}{_up_to(2, _OF_PRICE)} {_RATING}",
        rf"{_RATING}(?: range)?:?{_up_to(4, _OF_PRICE)} {level}{_NO_PRICE}",
    ]


def _stars(n: str) -> list[str]:
    """Ways to say a number of five, with the words of what is rated, so that no number is read by itself."""
    return [
        rf"{n} ?(?:ou[tr] of|ou[tr]|of|/) ?(?:5|five)(?: star(?:s|red)?)?(?: customer)?(?: rat\w+)?",
        rf"{n} ?star(?:s|red)?",
        rf"{_RATING}:?{_up_to(3, _OF_PRICE)} {n}",
        rf"(?<!of\s)(?<!out\s)(?<!-){n} (?:customer )?rat\w+",
    ]


_BEST = (
    r"(?:very )?(?:high(?:er|est|ly)?|excellent(?:ly)?|great|good|top|best|well|fantastic|outstanding|superb|perfect"
    rf"|favou?rabl[ey]|{_MORE}(?: than)? average)"
)
_MIDDLING = (
    r"(?:mediocre|decent(?:ly)?|moderate(?:ly)?|fair(?:ly)?|mid(?:dle|dling)?|medium|ok(?:ay)?|good|reasonabl[ey]|satisfactory"
    r"|acceptable|mixed)"
)
_WORST = (
    r"(?:very )?(?:low(?:er|est|ly)?|poor(?:ly)?|bad(?:ly)?|terribl[ey]|horribl[ey]|awful|negative|unfavou?rable"
    rf"|{_LESS}(?: than)? average)"
)
_GOOD = "(?:high(?:ly)?|well|good|great)"
_LOW = [
    *_rated(_WORST),
    *_rated(rf"{_ISNT}{_up_to(2)} {_GOOD}"),
    rf"{_ISNT}{_up_to(2)} {_RATING}{_up_to(2)} {_GOOD}",
    *_stars("(?:1|one)"),
]
_AVERAGE = [
    *_rated(_MIDDLING),
    # "An average rating of 1 out of 5" is a mean.
    *(rf"{each}(?!{_up_to(2)} (?:\d|one|three|five)\b)" for each in _rated(r"average(?:ly)?")),
    rf"average{_up_to(3, _OF_PRICE)} (?:coffee shop|pub|restaurant|place|venue|establishment|eatery|spot)",
    *_stars("(?:3|three)"),
]
_HIGH = [*_rated(_BEST), "highly recommended", *_stars("(?:5|five)")]

_KID = r"(?:(?:kid|child|children|famil(?:y|ies))(?:'?s)?|youngsters|toddlers|all ages?(?: groups?)?)"
_KIDS = rf"{_KID}(?: (?:with|and|or)(?: young| small)? {_KID})?"
_WELCOME = r"(?:friend(?:ly)?|orient(?:at)?ed|welcom(?:e[ds]?|ing)|allowed|accepted|permitted|suitable|appropriate)"
_FAMILY = [
    rf"{_KIDS}{_up_to(2)} {_WELCOME}",
    rf"(?:{_WELCOME}|good|great|ideal|perfect|nice|fun|open(?:ed)?|geared)(?: place)? (?:to|for|with|towards?)"
    rf"{_up_to(2)} {_KIDS}",
    rf"(?:welcom(?:es?|ing)|allow(?:s|ing)?|accept(?:s|ing)?|invit(?:es?|ing)|bring(?:ing)?|take|cater(?:s|ing)?(?: to| for)?)"
    rf"{_up_to(3)} {_KIDS}",
    rf"(?:for|with|to){_up_to(3)} {_KIDS}(?! (?:free|un))",
    r"family (?:restaurant|pub|coffee shop|place|establishment|atmosphere|environment|venue|dining|eatery|setting|run)",
]
_ADULTS = [
    *(rf"{_NOT}{_up_to(5, '|expensive|cheap|rated|far|just')} {each}" for each in _FAMILY),
    rf"{_KIDS}(?: are| is)? {_NOT}(?: be)?{_up_to(2)} {_WELCOME}",
    rf"{_KIDS}(?: {_WELCOME})?:? no",
    rf"{_NOT}(?: for)?{_up_to(2)} {_KIDS}",
    rf"{_KIDS} un{_WELCOME}",
    rf"un{_WELCOME} (?:to|for|with){_up_to(1)} {_KIDS}",
    rf"(?<!\band\s)(?<!\bor\s)adults?(?! (?:and|or|as well as) {_KIDS})",
    rf"(?:{_KIDS} free|child(?:less|free)|leave{_up_to(1)} {_KIDS})",
]

_PHRASES: dict[str, dict[str, list[str]]] = {
    "Type": {
        "coffee shop": ["coffee(?: ?shops?)?", "caf[eé]s?"],
        "pub": ["pubs?", "public house"],
        "restaurant": ["rest(?:au|ua|a|u)?r(?:au|a|u)nts?"],
    },
    "area": {
        "city centre": [
            r"(?:city|town)(?:'s)? cent(?:re|er)s?", r"cent(?:re|er) (?:of|in)(?: the)?(?: \w+)? (?:city|town|cambridge)",
            r"in(?: the)? cent(?:re|er)", r"(?:heart|middle) of(?: the)? (?:city|town|cambridge)", r"central(?:ly)?",
            "inner city", "downtown", "cent(?:re|er) (?:city|area)",
        ],
        "riverside": [
            r"river ?(?:side|bank|front)?s?", r"water ?(?:front|side)", "by the water", "thames",
            # There are two areas, and out of the one is in the other.
            r"(?:out ?side|outskirts|north|south|east|west)(?: of)?(?: the)?(?: cambridge)? (?:city cent(?:re|er)|city)",
            r"(?:out ?side|outskirts|north|south|east|west)(?: of)?(?: the)? cent(?:re|er) of(?: the)? city",
        ],
    },
    "customer rating": {
        "1 out of 5": _LOW, "low": _LOW, "3 out of 5": _AVERAGE, "average": _AVERAGE, "5 out of 5": _HIGH, "high": _HIGH,
    },
    "family friendly": {"yes": _FAMILY, "no": _ADULTS},
    "food": {
        "Chinese": ["chinese"],
        "English": ["english", "british(?! pounds?)"],
        "Fast food": ["fast foods?", "(?:ham|cheese)?burgers?", "fries"],
        "French": ["french"],
        "Indian": ["indian"],
        "Italian": ["italian", "pastas?", "spaghetti"],
        "Japanese": ["japanese", "sushi"],
    },
    "near": {"Crowne Plaza Hotel": ["Crowne? Plaza(?: Hotel)?"]},
    "price": {
        "cheap": _CHEAP,
        "less than £20": [
            *_CHEAP, rf"(?:{_LESS}|not? more|no higher|up|max(?:imum)?)(?: than| to| of)? {_20}",
            rf"{_20} (?:or|and) (?:less|under|below)", r"£ ?20",
        ],
        "more than £30": [
            *_DEAR, rf"(?:{_MORE}|upwards?|from|start\w*|exceed\w*)(?: than| of| at| from)? {_30}",
            rf"{_30} ?(?:\+|(?:and |or )?(?:up|more|above|over|plus|higher))", r"£ ?30",
        ],
        "high": _DEAR,
        "moderate": _MODERATE,
        "£20-25": [rf"{_20} ?(?:-|–|to|and)? ?{_25}", *_MODERATE],
    },
}  # fmt: skip
"""By field and value."""

_NAMES = ("name", "near")
VALUES: dict[str, tuple[str, ...]] = {
    **{field: tuple(values) for field, values in _PHRASES.items()},
    "name": (
        "Alimentum", "Aromi", "Bibimbap House", "Blue Spice", "Browns Cambridge", "Clowns", "Cocum", "Cotto", "Fitzbillies",
        "Giraffe", "Green Man", "Loch Fyne", "Midsummer House", "Strada", "Taste of Cambridge", "The Cambridge Blue",
        "The Cricketers", "The Dumpling Tree", "The Eagle", "The Golden Curry", "The Golden Palace", "The Mill",
        "The Olive Grove", "The Phoenix", "The Plough", "The Punter", "The Rice Boat", "The Twenty Two", "The Vaults",
        "The Waterman", "The Wrestlers", "Travellers Rest Beefeater", "Wildwood", "Zizzi",
    ),
    "near": (
        "All Bar One", "Avalon", "Burger King", "Café Adriatic", "Café Brazil", "Café Rouge", "Café Sicilia", "Clare Hall",
        "Crowne Plaza Hotel", "Express by Holiday Inn", "Rainbow Vegetarian Café", "Raja Indian Cuisine", "Ranch", "The Bakers",
        "The Portland Arms", "The Rice Boat", "The Six Bells", "The Sorrento", "Yippee Noodle Bar",
    ),
}  # fmt: skip
"""The values that E2E's three splits have of each field: what a text can say that was not asked."""
