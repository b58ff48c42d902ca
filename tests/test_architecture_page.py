"""docs/architecture.md names what exists: every file, every module.function, the complete tree."""

import ast
import dataclasses
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from normlab.config.compose import composed_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "normlab"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TREE = PAGE.split("```text\n", 1)[1].split("```", 1)[0].splitlines()[1:]
CODE = sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))))
FILES = [code for code in CODE if re.fullmatch(r"[\w.]+(/[\w.]+)*(/|\.(py|yaml|toml|md))", code)]
# Files that a user or a run makes.
NOT_IN_THE_REPOSITORY = {"norm/mine.yaml", "__init__.py"}
DOTTED = [
    code
    for code in CODE
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", code)
    and code not in (*FILES, "run.json", "runs.csv", "report.html")
]


def listed_files() -> list[str]:
    """The files of the tree, by their indentation of two spaces."""
    files, folders = [], [""]
    for line in TREE:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append((folders[-1] if depth > 1 else "") + name)
        else:
            files.append((folders[-1] if depth > 1 else "") + name)
    return files


def has_only_a_docstring(path: Path) -> bool:
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) <= 1


def nested_keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key, also of the groups themselves."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from nested_keys(value, f"{prefix}{key}.")


@pytest.fixture(scope="module")
def configuration_keys() -> set[str]:
    with composed_config(["data=shakespeare"]) as (_, composed):
        container = OmegaConf.to_container(composed, resolve=False)
    return set(nested_keys(cast(dict[str, Any], container)))


def resolves(name: str) -> bool:
    """Whether `package.module.Class.method` exists below normlab."""
    parts = ["normlab", *name.split(".")]
    for length in range(len(parts), 1, -1):
        module = ".".join(parts[:length])
        try:
            specification = find_spec(module)
        except ModuleNotFoundError:
            continue
        if specification is None:
            continue
        target = import_module(module)
        for attribute in parts[length:]:
            fields = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
            if not hasattr(target, attribute):
                return attribute in {field.name for field in fields}
            target = getattr(target, attribute)
        return True
    return False


def test_the_tree_lists_every_file_of_the_package_and_nothing_else() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    listing = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True)
    files = {name for name in listing.stdout.splitlines() if (PACKAGE / name).is_file()}
    expected = {name for name in files if not has_only_a_docstring(PACKAGE / name)}
    listed = listed_files()
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == expected


def test_every_file_of_the_tree_has_a_description() -> None:
    for line in TREE:
        assert line.strip().endswith("/") or len(line.split()) > 1, line


@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_IN_THE_REPOSITORY])
def test_every_file_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", DOTTED)
def test_every_name_is_of_the_package_or_a_key_of_the_configuration(
    name: str, configuration_keys: set[str]
) -> None:
    assert resolves(name) or name in configuration_keys
