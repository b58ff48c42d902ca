"""docs/catalogue.md is what the command writes today, and every file can be read into it."""

from pathlib import Path

import pytest

from normlab import config
from normlab.apps.catalogue import build_page, read_entry
from normlab.errors import NormlabError

ROOT = Path(__file__).parents[2]
COUNTS = {
    group: len(list((config.conf_folder() / group).glob("*.yaml")))
    for group in ("norm", "placement")
}


@pytest.mark.slow
def test_the_page_is_current() -> None:
    written = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert written == build_page(), "run python scripts/catalogue.py"


def test_the_pages_count_the_options_that_exist() -> None:
    norms, placements = COUNTS["norm"], COUNTS["placement"]
    readme, using, comparison, catalogue = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in (
            *("README.md", "docs/using.md"),
            *("docs/comparison_with_other_tools.md", "docs/catalogue.md"),
        )
    )
    assert len(list((config.conf_folder() / "placement" / "pre").glob("*.yaml"))) == 8
    for page in (readme, using, catalogue):
        assert "eight variants `pre/…`" in page
    assert f"{norms} norms and {placements} placements" in readme
    assert f"`none` and {norms - 3} others" in using
    assert f"`post` and {placements - 2} others" in using
    assert f"| norms, by name | {norms} |" in comparison
    assert f"| placements, by name | {placements} |" in comparison


@pytest.mark.parametrize("group", COUNTS)
def test_every_file_names_itself_its_equation_and_its_source(group: str) -> None:
    for path in (config.conf_folder() / group).glob("*.yaml"):
        entry = read_entry(path)
        assert entry.title
        assert entry.equation
        assert entry.sources or entry.name == "none"


def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# mine\n_target_: torch.nn.Identity\n")
    with pytest.raises(NormlabError, match="Title: equation"):
        read_entry(tmp_path / "mine.yaml")
