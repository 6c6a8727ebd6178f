import pytest

from diffusion_lm.annotate.features import FeatureVocabulary
from diffusion_lm.annotate.span_parser import SpanParser, SpanParserConfig


@pytest.fixture(scope="session")
def vocabulary() -> FeatureVocabulary:
    return FeatureVocabulary.of_spacy()


@pytest.fixture
def tiny(vocabulary: FeatureVocabulary) -> SpanParser:
    return SpanParser(SpanParserConfig(["NP", "S", "VP", "S+VP"], vocabulary, width=8)).eval()
