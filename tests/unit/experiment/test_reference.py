"""The reference page says what the model says."""

from pathlib import Path

from kubesae.experiment.reference import reference_page

PAGE = Path(__file__).parents[3] / "docs" / "experiment.md"


def test_the_page_is_the_models():
    assert PAGE.read_text() == reference_page(), "run `kubesae config --reference > docs/experiment.md`"
