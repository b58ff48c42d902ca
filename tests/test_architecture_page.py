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
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Each begins with its folder: src/normlab/, scripts/bench/, scripts/docs/.
TREES = [block.splitlines() for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]
CODE = sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))))
FILES = [
    code for code in CODE if re.fullmatch(r"[\w.]+(/[\w.]+)*(/|\.(py|yaml|toml|md|html|js))", code)
]
# Files that a user or a run makes.
NOT_IN_THE_REPOSITORY = {"norm/mine.yaml", "__init__.py", "docs/api/", "report.html"}
DOTTED = [
    code
    for code in CODE
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", code)
    and code not in (*FILES, "run.json", "runs.csv")
]


def listed_files(lines: list[str]) -> list[str]:
    """The files of a tree, by their indentation of two spaces."""
    files, folders = [], [""]
    for line in lines:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        path = (folders[-1] if depth > 1 else "") + name
        if name.endswith("/"):
            folders.append(path)
        else:
            files.append(path)
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


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree[0].split()[0])
def test_a_tree_lists_every_file_of_its_folder_and_nothing_else(tree: list[str]) -> None:
    folder = ROOT / tree[0].split()[0]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    listing = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    files = {name for name in listing.stdout.splitlines() if (folder / name).is_file()}
    expected = {name for name in files if not has_only_a_docstring(folder / name)}
    assert sorted(listed_files(tree[1:])) == sorted(expected)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree[0].split()[0])
def test_every_file_of_a_tree_has_a_description(tree: list[str]) -> None:
    for line in tree:
        assert line.split()[0].endswith("/") or len(line.split()) > 1, line


def test_the_page_shows_the_package_the_benchmarks_and_the_site() -> None:
    folders = [tree[0].split()[0] for tree in TREES]
    assert folders == ["src/normlab/", "scripts/bench/", "scripts/docs/"]


@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_IN_THE_REPOSITORY])
def test_every_file_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", DOTTED)
def test_every_name_is_of_the_package_or_a_key_of_the_configuration(
    name: str, configuration_keys: set[str]
) -> None:
    assert resolves(name) or name in configuration_keys
