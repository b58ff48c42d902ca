"""Requests that somebody could type by mistake: overrides and files, bent at random."""

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from normlab import config

GROUPS = ("norm", "placement", "model", "optimizer", "schedule", "budget", "trainer", "experiment")

# Values that stand where something else should, and characters that mean something to somebody.
VALUES = (
    *("", "abc", "-1", "0", "1.5", "1e400", "-1e-400", "nan", "inf", "-inf", "true", "null"),
    *("None", "1" * 30, "9" * 400, "0x10", "1_000", "1e3", "'3'", '"3"', "'", '"', "3'", "a b"),
    *(" 3 ", "\t", "[", "]", "[]", "[1,2]", "[[1],[2]]", "[a,", "{", "}", "{}", "{a: 1}"),
    *("{a: {b: [1]}}", "{a}", "(", ")", ",", "1,", ",1", "1,,2", "a,b", "1,2,3", ":", "a:b", "="),
    *("a=b", "\\", "\\,", "%", "#", "${seed}", "${nothing}", "${", "$", "${}", "${model.width}"),
    *("${.depth}", "${..seed}", "${a.b.c}", "${normlab.study:}", "${oc.env:NO_SUCH_VARIABLE}"),
    *("${nothing:1,2}", "\\${seed}", "${model}", "é", "σ", "日本語", "\u202e", "🙂", "\u00a0"),
    *("３", "???", "~", "*", "&a", "!x", "!!int 3", "@", "`", "range(0,3)", "range(3)", "range()"),
    *("choice(1,2)", "choice()", "interval(0,1)", "glob(*)", "glob(x*)", "sort(3,1)"),
    *("shuffle(1,2)", "tag(a,1)", "str(1)", "int(1.5)", "int(x)", "float(1)", "bool(2)"),
    *("json_str([1])", "extend_list(1)", "foo(1)", "sqrt(L)", "L**L**L", "1/0", "l", "L.a"),
    *("{init: 1}", "{init: {init: 1}}", "{per: feature}", "{where: l}", "{_target_: 3}"),
    *("{_target_: a}", "{_target_: torch.nn.Linear}"),
    *("{_target_: normlab.norms.RMSNorm, eps: x}", "{1: 2}", "{null: 1}"),
    *("{_target_: normlab.norms.Formula, expression: x}", "{_partial_: true}", "{_args_: [1]}"),
    *("[true,false]", "[null]", "{true: 1}", "[0.9,x]", "[0.9,0.9,0.9]", "0.5", "1", "2", "1024"),
)  # fmt: skip
LINES = (
    *("", "---", "...", "- a", "a", "a: 1", "a: {", "? a", "a: &b 1", "a: *b", "<<: *b"),
    *("a: !!int x", "%YAML 1.1", "!!python/object/apply:os.getcwd []", "_target_: 3"),
    *("defaults: 3", "defaults: []", "defaults: [nothing]", "defaults:\n  - _self_"),
    *("# @package foo", "# @package _global_", "\tb: 1", "a: ${b}", "a: ${a}", "_partial_: 3"),
    *("_recursive_: x", "_args_: [1]", "_convert_: x", "1: 2", "null: 1", "true: 1"),
    *("a: 2020-01-01", "a: 0o17", "a: 1:30", "a: !!binary aGk=", "a: !!set {a}", "'a", '"'),
    *("a: |", "a: >\n   b\n  c", "a: [1, 2", "é: σ", "a: 1e400", "a: " + "[" * 200),
)  # fmt: skip


def override(dice: random.Random) -> str:
    """A key of the configuration, a value, and something wrong with one of them, or both."""
    key, value = dice.choice(_items())
    for _ in range(dice.choice((1, 1, 2))):
        key, value = dice.choice(_OVERRIDES)(dice, key, value)
    return f"{key}={value}" if value is not None else key


def sound_overrides() -> list[str]:
    """Overrides as they stand in conf/."""
    return [f"{key}={value}" for key, value in _items()]


def text(dice: random.Random, original: str) -> bytes:
    """A file of the configuration with one to three things wrong with it."""
    lines = original.splitlines()
    for _ in range(dice.choice((1, 1, 2, 3))):
        lines = dice.choice(_LINES)(dice, lines) or [""]
    encoded = "\n".join(lines).encode()
    return dice.choice(_BYTES)(dice, encoded) if dice.random() < 0.3 else encoded


def files(group: str) -> list[Path]:
    """The files of a group that need no network and no file of the user's."""
    return sorted((config.conf_folder() / group).glob("*.yaml"))


_Item = tuple[str, str | None]


@cache
def _items() -> list[_Item]:
    """Every group with its options, and every key of its first option with its value."""
    found: list[_Item] = [("seed", "0"), ("study", "mine"), ("data", "synthetic")]
    for group in ("data", *GROUPS):
        for path in files(group):
            found.append((group, path.stem))
            found += [(f"{group}.{key}", value) for key, value in _leaves(path)]
    return found


def _leaves(path: Path) -> list[tuple[str, str]]:
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    return [(str(key), str(value)) for key, value in node.items() if key != "defaults"]


def _typo(dice: random.Random, word: str) -> str:
    at = dice.randrange(len(word) + 1)
    letter = dice.choice("aexz_.-/@:0 éσ+~,[{'\"$\\")
    return dice.choice(
        (
            word[:at] + letter + word[at:],
            word[:at] + word[at + 1 :],
            word[:at] + word[at : at + 1] * 2 + word[at + 1 :],
            word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :],
            word.swapcase(),
        )
    )


_OVERRIDES: Sequence[Callable[[random.Random, str, str | None], _Item]] = (
    lambda dice, key, value: (_typo(dice, key), value),
    lambda dice, key, value: (key, _typo(dice, value or "")),
    lambda dice, key, value: (key, dice.choice(VALUES)),
    lambda dice, key, value: (key, dice.choice(VALUES)),
    lambda dice, key, value: (key, dice.choice(VALUES)),
    lambda dice, key, value: (key, f"{value},{dice.choice(VALUES)}"),
    lambda dice, key, value: (key, f"[{value},{dice.choice(VALUES)}]"),
    lambda dice, key, value: (key, f"{{a: {value}, {dice.choice(VALUES)}: {value}}}"),
    lambda dice, key, value: (f"{dice.choice(('+', '++', '~', '+~', '~~'))}{key}", value),
    lambda dice, key, value: (f"~{key}", None),
    lambda dice, key, value: (key, None),
    lambda dice, key, value: (f"{key}.{dice.choice(('a', '0', '_target_', 'é', ''))}", value),
    lambda dice, key, value: (f"+{key}.{dice.choice(('a', '0', 'init', '_args_'))}", value),
    lambda dice, key, value: (key.split(".")[0], value),
    lambda dice, key, value: (key + dice.choice(("@a", "@_global_", ":a", "/a", "@a:b")), value),
    lambda dice, key, value: (f"+placement.blocks.{dice.choice(('a', '1'))}", dice.choice(VALUES)),
    lambda dice, key, value: (f"placement.{dice.choice(('skip', 'input'))}", dice.choice(VALUES)),
)


def _changed(
    change: Callable[[random.Random, str], str | list[str]],
) -> Callable[[random.Random, list[str]], list[str]]:
    def apply(dice: random.Random, lines: list[str]) -> list[str]:
        lines = lines or [""]  # of a file that is empty
        at = dice.randrange(len(lines))
        new = change(dice, lines[at])
        return [*lines[:at], *([new] if isinstance(new, str) else new), *lines[at + 1 :]]

    return apply


def _revalued(dice: random.Random, line: str) -> str:
    return re.sub(r":.*", lambda _: f": {dice.choice(VALUES)}", line, count=1)


_LINES: Sequence[Callable[[random.Random, list[str]], list[str]]] = (
    _changed(lambda dice, line: []),
    _changed(lambda dice, line: [line, line]),
    _changed(lambda dice, line: dice.choice((" ", "  ", "\t", "      ")) + line),
    _changed(lambda dice, line: line.lstrip()),
    _changed(lambda dice, line: _typo(dice, line)),
    _changed(_revalued),
    _changed(_revalued),
    _changed(lambda dice, line: line.partition(":")[0]),
    _changed(lambda dice, line: [line, dice.choice(LINES)]),
    _changed(lambda dice, line: [line, f"  {dice.choice(LINES)}"]),
    _changed(lambda dice, line: dice.choice(LINES)),
    lambda dice, lines: dice.sample(lines, len(lines)),
    lambda dice, lines: lines[: dice.randrange(len(lines) + 1)],
    lambda dice, lines: [f"- {line}" for line in lines],
)


def _flipped(dice: random.Random, data: bytes) -> bytes:
    flipped = bytearray(data or b"a")
    flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
    return bytes(flipped)


_BYTES: Sequence[Callable[[random.Random, bytes], bytes]] = (
    _flipped,
    _flipped,
    _flipped,
    lambda dice, data: b"\xef\xbb\xbf" + data,
    lambda dice, data: data.decode().encode("utf-16"),
    lambda dice, data: data.replace(b"\n", b"\r\n"),
    lambda dice, data: data + b"\x00",
    lambda dice, data: data + b"\xff\xfe",
)
