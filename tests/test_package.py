"""What is installed from a wheel works by itself: the package, its conf/, its commands."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from normlab import config
from normlab.apps.learn.exercises import EXERCISES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a freshly built wheel, as pip would lay it out."""
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target / "site")
    return target / "site"


def test_the_wheel_carries_every_file_of_conf(unpacked: Path) -> None:
    inside = unpacked / "normlab" / "conf"
    packed = {path.relative_to(inside) for path in inside.rglob("*.yaml")}
    assert packed == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}


def test_the_wheel_carries_what_the_report_is_made_of(unpacked: Path) -> None:
    place = Path("normlab", "analysis", "templates")
    packed = {path.name for path in (unpacked / place).iterdir()}
    assert packed == {path.name for path in (ROOT / "src" / place).iterdir()}
    assert "study.html" in packed


def test_the_wheel_carries_the_teaching_path(unpacked: Path) -> None:
    package, docs = unpacked / "normlab", ROOT / "docs" / "learn"
    packed = {path.name for path in (package / "apps/learn/skeletons").iterdir()}
    assert packed == {exercise.file_name for exercise in EXERCISES.values()}
    inside = package / "learn_content"
    packed = {path.relative_to(inside) for path in inside.rglob("*") if path.is_file()}
    sources = {path.relative_to(docs) for path in docs.rglob("*") if path.is_file()}
    assert packed == {path for path in sources if "__pycache__" not in path.parts}


def test_the_command_of_an_installed_wheel_finds_its_own_conf(
    unpacked: Path, tmp_path: Path
) -> None:
    code = (
        "import normlab.config; from normlab.study import command; "
        "print(normlab.config.conf_folder()); "
        "import sys; sys.argv[1:] = ['--cfg', 'job']; command.main({}, {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(unpacked))
    assert "normlab.norms.RMSNorm" in done.stdout


def test_a_checkout_uses_the_conf_at_its_top() -> None:
    assert config.conf_folder() == ROOT / "conf"


@pytest.mark.parametrize(
    "name",
    ["normlab", "normlab-plot", "normlab-sample", "normlab-card", "normlab-probe", "normlab-learn"],
)
def test_every_console_command_leads_to_a_function(name: str) -> None:
    (command,) = entry_points(group="console_scripts", name=name)
    assert callable(command.load())


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_what_is_pinned_is_for_the_first_release_of_every_python(python: str) -> None:
    """Debian 12 has Python 3.11.2: a pin that asks for a later one ends its `make test`."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    refused = []
    for pin in (Requirement(line) for line in lines if line and not line.startswith("#")):
        try:
            package = distribution(pin.name)
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        needed = package.metadata["Requires-Python"] or ""
        if python not in SpecifierSet(needed):
            refused.append(f"{pin.name} {package.version} needs Python {needed}")
    assert not refused
