"""YAML from elsewhere, read with bounds: a file of some hundred bytes can name gigabytes.

YAML's aliases make a file small and what it stands for large (each level of nine aliases to the
level before multiplies by nine), and its parsers recurse. So the size, the depth and the aliases
are counted while nothing is built yet, and only a file within the bounds is loaded.
"""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.archive.files import read_bytes
from normlab.errors import ConfigError
from normlab.text import one_line

# The largest file of conf/ has 3 KB, 100 nodes and a depth of 5.
MAX_BYTES = 64 * 1024
MAX_NODES = 2_000  # keys and values, with every alias counted as often as it is used
MAX_DEPTH = 24
MAX_CHARACTERS = 4_000  # of a single key or value
MAX_BITS = 63  # of a whole number

_TAGS: set[str | None] = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")
}
_TAGS |= {"tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", "!", None}
# YAML 1.1 reads 1:30:00 as 5400 and 010 as 8, which nobody means.
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$")


def read_text(path: Path) -> str:
    """The text of a regular file of at most `MAX_BYTES`.

    Raises:
        ConfigError: it is larger, not a regular file, not UTF-8, or cannot be read.
    """
    try:
        content = read_bytes(path, MAX_BYTES, follow_links=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); a configuration is a YAML file of at most "
            f"{MAX_BYTES:,} bytes."
        ) from error
    try:
        # Line ends as in a file that is opened as text, which is how Hydra reads it.
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not text in UTF-8 (byte {error.start} is 0x{content[error.start]:02x}); "
            f"save it as UTF-8."
        ) from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, as dict, list and scalars, with interpolations as they are written.

    Raises:
        ConfigError: it cannot be read, is not YAML, or is beyond the bounds.
    """
    return parse_yaml(path, read_text(path))


def parse_yaml(path: Path, text: str) -> Any:
    """The same for a text that was read already; `path` is for the messages. Raises ConfigError."""
    try:
        if not _check_events(path, text):
            return {}
        # OmegaConf's reader is the one that Hydra will use: it must not see another content.
        plain = OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=False)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}.") from error
    except (OmegaConfBaseException, OSError, ValueError, TypeError, OverflowError) as error:
        detail = one_line(error)
        raise ConfigError(f"{path} is not a configuration in YAML: {detail}.") from error
    check_numbers(path, plain)
    return plain


def check_numbers(path: Path, value: Any, key: str = "") -> None:
    """Refuse whole numbers of more than `MAX_BITS` bits: Python cannot even print large ones.

    Raises:
        ConfigError: naming the first.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            check_numbers(path, name, f"a key of {key or 'the file'}")
            check_numbers(path, item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_numbers(path, item, f"{key}.{index}")
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ConfigError(
            f"{path}: {key} is a whole number of {value.bit_length()} bits; "
            f"write one of at most {MAX_BITS} bits."
        )


def _check_events(path: Path, text: str) -> int:
    """Bounds that hold before anything is built: the parser's events need no recursion.

    Returns the number of nodes, an alias as all that it stands for.
    """
    nodes = documents = 0
    open_collections: list[tuple[str | None, int]] = []  # their anchor, the nodes before them
    sizes: dict[str | None, int] = {}  # nodes of every anchor; of a scalar 1
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_collections):
                raise ConfigError(f"{path} has an alias that holds itself; write the value out.")
            nodes += sizes.get(event.anchor, 1)
        nodes += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, nodes - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        problem = _event_problem(event)
        if len(open_collections) > MAX_DEPTH:
            problem = f"is nested more than {MAX_DEPTH} levels deep; write it flatter"
        if documents > 1:
            problem = "holds more than one YAML document; keep the first"
        if problem:
            mark = event.start_mark
            raise ConfigError(f"{path}, line {mark.line + 1 if mark else 1}: the file {problem}.")
        if nodes > MAX_NODES:
            raise ConfigError(
                f"{path} stands for more than {MAX_NODES:,} keys and values, aliases written out; "
                f"divide it into several files."
            )
    return nodes


def _event_problem(event: yaml.Event) -> str:
    if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag not in _TAGS:
        return f"uses the YAML tag {event.tag}; write plain values, lists and mappings only"
    if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_CHARACTERS:
        length = len(event.value)
        return f"has a key or value of {length:,} characters, more than {MAX_CHARACTERS:,}"
    # implicit[0]: it is not between quotes, where it would be a text to YAML too.
    if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _OTHER_BASE.match(event.value):
        return (
            f"has {event.value}, which YAML 1.1 reads as a number of base 60 or 8; write it in "
            f"decimal, or between quotes as a text"
        )
    return ""
