"""Names that come from files are names of folders: they lead nowhere else, and fit."""

from pathlib import Path

import pytest

from normlab.archive.record import check_output_dir, check_study_name, run_name
from normlab.errors import ConfigError

ODD = [
    "..",
    "../../x",
    "/etc/passwd",
    ".hidden",
    "-rf",
    "a b\n",
    "𝒩orm",
    "x" * 300,
    "\0",
    "$(x)",
    "",
]


@pytest.mark.parametrize("norm", ODD)
@pytest.mark.parametrize("placement", ["pre", "../../x"])
def test_a_runs_name_stays_in_its_folder_whatever_its_norm_is_called(
    norm: str, placement: str
) -> None:
    name = run_name(norm, placement, 1e-3, 0, "1a2b3c4d")
    assert name == Path(name).name
    assert name[0].isalnum()
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 100
    assert name.endswith("-s0-1a2b3c4d")


@pytest.mark.parametrize("study", [*ODD, "a/b", "a\n", "x" * 65])
def test_a_study_is_the_plain_name_of_a_folder(study: str) -> None:
    with pytest.raises(ConfigError, match="study="):
        check_study_name(study)


@pytest.mark.parametrize("path", ["outputs", "/tmp/o", "../o", "ü/x y", "."])
def test_results_go_where_the_user_says(path: str) -> None:
    check_output_dir(path)


@pytest.mark.parametrize("path", ["", "a\0b", "a\nb", "x" * 256, "o/" + "ü" * 200, "ab/" * 1001])
def test_a_path_that_no_folder_can_have_is_refused(path: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_output_dir(path)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300
