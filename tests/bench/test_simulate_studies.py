"""scripts/bench/simulate_studies.py: a page that cannot hold the tables is refused at the start."""

from pathlib import Path

import numpy as np
import pytest

import simulate_studies

PAGE = f"before\n{simulate_studies.START}\nold\n{simulate_studies.END}\nafter\n"


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tables that were simulated; each is empty, and made at once."""
    made: list[int] = []

    def measure(*arguments: object) -> simulate_studies.Array:
        made.append(1)
        return np.zeros((len(simulate_studies.ARMS), len(simulate_studies.SEEDS)))

    monkeypatch.setattr(simulate_studies, "measure_errors", measure)
    monkeypatch.setattr(simulate_studies, "measure_power", measure)
    return made


@pytest.mark.parametrize("text", [None, "no part", f"only {simulate_studies.START}"])
def test_a_page_without_the_part_is_refused_before_the_simulation(
    text: str | None,
    cells: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    monkeypatch.setattr("sys.argv", ["simulate_studies.py", "--page", str(page)])
    with pytest.raises(SystemExit) as left:
        simulate_studies.main()
    assert left.value.code == 2
    reason = "cannot be read (No such file" if text is None else "has no part between <!-- sim"
    assert f"{page} {reason}" in capsys.readouterr().err
    assert cells == []


def test_the_tables_replace_the_part(
    cells: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr("sys.argv", ["simulate_studies.py", "--page", str(page)])
    simulate_studies.main()
    text = page.read_text()
    assert text.startswith(f"before\n{simulate_studies.START}\n\n**No difference, equal noise**")
    assert text.endswith(f"\n\n{simulate_studies.END}\nafter\n")
    assert "old" not in text
