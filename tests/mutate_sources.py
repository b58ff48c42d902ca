"""Do the tests notice? Change one operator or number of src/normlab at a time, and run the tests.

    python tests/mutate_sources.py [--count 60] [--seed 0] [--only archive,analysis]

The mutations are drawn with the seed, as many from each package as it has lines. Each is made in a
copy of the working tree, where the fast tests of the same package are run until one fails, whose
name is printed. A package whose tests fail without a mutation is left out. A mutation that no test
notices is printed with its line: look at it, for some change nothing that matters (a tolerance, a
message's length). It takes about a minute each.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "normlab"
# A mutation that makes a loop endless is noticed too: by tests that take so many times as long.
_ENDLESS = 3

_OTHER_OPERATOR: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A node of a file, by its place in the order of `ast.walk`, and what becomes of it."""

    path: Path
    node: int
    line: int
    text: str

    @property
    def package(self) -> str:
        """The package's folder below src/normlab; of an application its own."""
        parts = self.path.relative_to(SOURCES).parts[:-1]
        return "/".join(parts[:2] if parts[:1] == ("apps",) else parts[:1])

    @property
    def module(self) -> str:
        """The file's name in an import."""
        return ".".join(self.path.relative_to(SOURCES.parent).with_suffix("").parts)


def find_mutations(path: Path) -> Iterator[Mutation]:
    """Every operator and number of a file that can be changed; nothing of a type's annotation."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    hints = {
        id(inner)
        for node in ast.walk(tree)
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if hint is not None
        for inner in ast.walk(hint)
    }
    lines = source.splitlines()
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in hints or not mutate_node(node, dry=True):
            continue
        line = getattr(node, "lineno", 0)
        yield Mutation(path, index, line, lines[line - 1].strip())


def mutate_node(node: ast.AST, dry: bool = False) -> bool:
    """Change a node in place; returns whether there is anything to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER_OPERATOR:
        if not dry:
            node.ops[0] = _OTHER_OPERATOR[type(node.ops[0])]()  # type: ignore[call-overload]
        return True
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _OTHER_OPERATOR:
        if not dry:
            node.op = _OTHER_OPERATOR[type(node.op)]()  # type: ignore[assignment]
        return True
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if not dry:
            node.value = node.value + 1
        return True
    return False


def draw_mutations(count: int, seed: int, only: set[str]) -> list[Mutation]:
    """As many from each package as it has places to change, at least one each."""
    files = sorted(SOURCES.rglob("*.py"))
    mutations = [mutation for path in files for mutation in find_mutations(path)]
    if only:
        mutations = [mutation for mutation in mutations if mutation.package in only]
    dice = random.Random(seed)
    packages: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        packages.setdefault(mutation.package, []).append(mutation)
    drawn = [dice.choice(packages[name]) for name in sorted(packages)]
    rest = [mutation for mutation in mutations if mutation not in drawn]
    return [*drawn, *dice.sample(rest, max(0, min(count, len(mutations)) - len(drawn)))][:count]


def find_noticing_test(mutation: Mutation, tree: Path, limit: float) -> str | None:
    """The first fast test of the mutation's package that fails where `tree` has the mutation.

    Tests that take longer than `limit` seconds have failed.
    """
    path = tree / mutation.path.relative_to(ROOT)
    original = path.read_text(encoding="utf-8")
    parsed = ast.parse(original)
    mutate_node(list(ast.walk(parsed))[mutation.node])
    path.write_text(ast.unparse(ast.fix_missing_locations(parsed)), encoding="utf-8")
    try:
        return find_failing_test(mutation.package, tree, mutation.module, limit)
    finally:
        path.write_text(original, encoding="utf-8")


def find_failing_test(
    package: str, tree: Path, module: str = "", limit: float | None = None
) -> str | None:
    """The first of a package's fast tests that fails in this tree; None where all pass.

    Files that import the module named come before the others, which saves most of the time.
    """
    folder = tree / "tests" / package
    tests = sorted(folder.rglob("test_*.py") if package else folder.glob("test_*.py"))
    tests.sort(key=lambda test: f"from {module} import" not in test.read_text(encoding="utf-8"))
    flags = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *flags, *map(str, tests)]
    try:
        answer = subprocess.run(
            command, cwd=tree, capture_output=True, timeout=limit, check=False,
            env={**os.environ, "PYTHONPATH": str(tree / "src")}, text=True,
        )  # fmt: skip
        failed = (line for line in answer.stdout.splitlines() if line.startswith(("FAILED", "ERR")))
        return next(failed, f"pytest ended with {answer.returncode}") if answer.returncode else None
    except subprocess.TimeoutExpired:
        return f"not finished after {limit:.0f} s"


def main() -> None:
    """Draw, try, and print what no test noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="packages, as archive,apps/card")
    options = parser.parse_args()
    drawn = draw_mutations(options.count, options.seed, set(filter(None, options.only.split(","))))
    noticed = tried = 0
    with tempfile.TemporaryDirectory(prefix="normlab-mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".venv", "outputs", "__pycache__")
        )
        limits: dict[str, float | None] = {}  # of each package; None where its tests are red
        for number, mutation in enumerate(drawn, 1):
            package = mutation.package
            if package not in limits:
                start = time.monotonic()
                red = find_failing_test(package, tree)
                limits[package] = None if red else _ENDLESS * (time.monotonic() - start)
                if red:
                    print(f"left out: {package} without a mutation, too: {red}", flush=True)
            limit = limits[package]
            if limit is None:
                continue
            failed = find_noticing_test(mutation, tree, limit)
            tried += 1
            noticed += failed is not None
            place = f"{mutation.path.relative_to(SOURCES)}:{mutation.line}"
            word = "noticed " if failed else "SURVIVED"
            print(f"{number}/{len(drawn)} {word} {place}  {mutation.text}")
            print(f"    {failed or 'no test failed'}", flush=True)
    print(f"seed {options.seed}: {noticed} of {tried} mutations noticed")


if __name__ == "__main__":
    main()
