"""The list of groups that --help prints, taken from what is really there."""

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType

from normlab.text import printable

# What is in conf/ and no choice of a run: claims are for scripts/claims.py.
_APART = ("hydra", "schema", "claim")


def groups() -> str:
    """Every group of conf/ and of the user's own folder, with its options, a line each."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options("", ObjectType.GROUP)
    shown = [name for name in names if name not in _APART]
    width = max(map(len, shown))
    lines = []
    for name in shown:
        options = loader.get_group_options(name, ObjectType.CONFIG)
        lines.append(f"  {name:<{width}}  {', '.join(options)}")
    return printable("\n".join(lines))
