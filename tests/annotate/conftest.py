import pytest

from diffusion_lm.annotate.parser import FeatureVocabulary, SpanParser, SpanParserConfig


@pytest.fixture(scope="session")
def vocabulary() -> FeatureVocabulary:
    return FeatureVocabulary.of_spacy()


@pytest.fixture
def tiny(vocabulary: FeatureVocabulary) -> SpanParser:
    return SpanParser(SpanParserConfig(["NP", "S", "VP", "S+VP"], vocabulary, width=8)).eval()
