"""Configuration files and overrides, bent at random. Derived from conf/ and the hostile files."""

import random
from pathlib import Path

import mutations
from normlab import config

HOSTILE = Path(__file__).resolve().parents[1] / "hostile"
GROUPS = (*mutations.GROUPS, "data", "sweep", "probes", "logger")
# What a file from elsewhere might ask for, to be put between the lines of another.
LINES = (
    *("hydra: {sweeper: {arms: [norm=none placement=post]}}", "hydra: {launcher: {n_jobs: 2}}"),
    *("hydra: {searchpath: [pkg://os]}", "hydra: {sweeper: {params: {seed: '0,1'}}}"),
    *("defaults: [override /norm: layernorm]", "defaults: [bent]", "defaults: [/norm: ../x]"),
    *("# @package hydra", "# @package model", "a: &a [1, 1]\nb: [*a, *a, *a]", "a: ${model.width}"),
    *("a: ${oc.env:HOME}", "a: ${oc.create:{b: c}}", "a: ${a}${a}", "_target_: os.system"),
    *("? [a, b]\n: c", "\"\\e]0;x\\a\": 1", "a: 0x" + "f" * 40, "a: .inf", "<<: {a: 1}"),
)  # fmt: skip


def bend_file(dice: random.Random, folder: Path) -> str:
    """Put one file with something wrong, or nothing, into a folder for --config-dir; its group."""
    group = dice.choice(GROUPS)
    originals = mutations.files(group)
    if dice.random() < 0.15:
        path = dice.choice([p for p in HOSTILE.glob("*.yaml") if ".claim." not in p.name])
        group = "experiment" if "experiment" in path.name else "norm"
        originals = [path]
    if group == "data":
        originals = [path for path in originals if path.stem == "synthetic"]
    text = dice.choice(originals).read_text()
    content = text.encode() if dice.random() < 0.25 else mutations.text(dice, text)
    if dice.random() < 0.2:
        lines = content.splitlines()
        lines.insert(dice.randint(0, len(lines)), dice.choice(LINES).encode())
        content = b"\n".join(lines)
    path = folder / group / "bent.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return group


def bend_overrides(dice: random.Random) -> list[str]:
    """One to three overrides, some with something wrong."""
    if dice.random() < 0.25:
        words = [dice.choice(mutations.sound_overrides())]
    else:
        words = [mutations.override(dice)]
    if dice.random() < 0.3:
        words.append(f"placement={dice.choice(options('placement'))}")
    if dice.random() < 0.3:
        words.append(f"norm={dice.choice(options('norm'))}")
    if dice.random() < 0.2:
        words.append(mutations.override(dice))
    return words


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config.conf_folder() / group).glob("*.yaml"))
