"""The source files of the user's own classes: what neither a run's id nor a version tells apart."""

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object

# Not the user's: their versions are in every record.
_NOT_USERS = {"torch", "normlab", *sys.stdlib_module_names}


def digest_user_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """A digest by module of each source file that the classes of norm and placement are written in.

    The classes are those that `_target_` names and all that they inherit from, torch's and
    normlab's own left out; a file that they only call is not looked at. Comments and layout do not
    count. It imports the classes, so the configuration must be trusted; what cannot be imported has
    no digest.
    """
    targets = {*_find_targets(config.get("norm")), *_find_targets(config.get("placement"))}
    modules = set()
    for target in targets:
        if target.partition(".")[0] not in _NOT_USERS:
            with suppress(Exception):  # of anybody's module; building the norm says what is wrong
                named = get_object(target)  # a class or a function
                modules |= {item.__module__ for item in getattr(named, "__mro__", [named])}
    digests = {
        module: _digest_source(sys.modules[module])
        for module in sorted(map(str, modules))
        # A class may name a module that there is not, or none at all.
        if module in sys.modules and module.partition(".")[0] not in _NOT_USERS
    }
    return {module: digest for module, digest in digests.items() if digest}


def changed_modules(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The modules of which both digests are known and differ."""
    return [name for name in before if now.get(name, before[name]) != before[name]]


def _find_targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _find_targets(item)


@cache  # as the file was when the module was imported, whatever becomes of it later
def _digest_source(module: ModuleType) -> str | None:
    try:
        path = Path(inspect.getsourcefile(module) or "")
        statements = ast.unparse(ast.parse(path.read_bytes()))
    except (TypeError, OSError, SyntaxError, ValueError):  # it has no file, or none in Python
        return None
    return hashlib.sha256(statements.encode()).hexdigest()[:16]
