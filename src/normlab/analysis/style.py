"""How every figure looks: a colour for each norm, a line style and marker for each placement."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from normlab.analysis.arms import Arm
from normlab.archive.record import RunRecord
from normlab.text import one_line

# Okabe and Ito's palette: distinct with every kind of colour blindness.
_BLUE, _VERMILLION, _GREEN = "#0072B2", "#D55E00", "#009E73"
_ORANGE, _SKY, _PURPLE, _YELLOW = "#E69F00", "#56B4E9", "#CC79A7", "#B8A800"
INK, GREY, GRID = "#222222", "#6E6E6E", "#E6E6E6"

_NORM_COLOURS = {
    "rmsnorm": _BLUE,
    "layernorm": _VERMILLION,
    "none": "#4D4D4D",
    "any": "#4D4D4D",  # no norm stands anywhere
    "dyt": _GREEN,
    "scalenorm": _PURPLE,
    "partial_rmsnorm": _SKY,
    "layernorm_nobias": _ORANGE,
}
_FREE_COLOURS = (_GREEN, _PURPLE, _ORANGE, _SKY, _YELLOW, "#6A3D9A", "#8C510A", "#01665E")

# For what is still without a colour when those are taken: Paul Tol's muted ones.
_MORE_COLOURS = (
    *("#882255", "#332288", "#999933", "#AA4499", "#44AA99", "#661100", "#117733", "#DDAA33"),
)

_T = TypeVar("_T")

LineStyle = str | tuple[int, tuple[float, ...]]

DOTTED: Any = (0, (1.0, 1.6))
_SOLID, _DASHED = ("-", "o"), ((0, (5.0, 2.0)), "s")
_PLACEMENT_STYLES: dict[str, tuple[LineStyle, str]] = {
    "pre": _SOLID,
    "any": _SOLID,
    "post": _DASHED,
    "sandwich": ((0, (1.2, 1.4)), "^"),
    "output": ((0, (6.0, 1.6, 1.2, 1.6)), "D"),
    "layerscale": ((0, (9.0, 2.0)), "v"),
}
# No x and no X among the markers: a cross means that a run diverged.
_FREE_STYLES: tuple[tuple[LineStyle, str], ...] = (
    *(_PLACEMENT_STYLES[name] for name in ("sandwich", "output", "layerscale")),
    ((0, (4.0, 1.4, 1.2, 1.4, 1.2, 1.4)), "P"),
    ((0, (2.5, 1.5)), "p"),
    ((0, (8.0, 2.0, 3.0, 2.0)), "<"),
    ((0, (1.0, 3.0)), ">"),
)

WIDTH = 8.0  # inches; shown 800 pixels wide, 9 points are 12.5 pixels
DPI = 220

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,  # as in 1e-4, which names and overrides hold: one sign everywhere
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#9A9A9A",
    "ytick.color": "#9A9A9A",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "normlab",  # the same figure is the same file
    "savefig.facecolor": "white",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the style of this module alone, whatever a user's matplotlibrc sets."""
    import matplotlib  # half a second, which tables do not need

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


@contextmanager
def skip_failed_figure(what: str, left_out: list[str]) -> Iterator[None]:
    """Where what is inside cannot draw, `left_out` gets a sentence, and all else goes on.

    Raises:
        OSError: a file cannot be written. matplotlib raises one without a number for other reasons.
    """
    try:
        yield
    except Exception as error:  # a folder for its cache, a font, a broken package, our own fault
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = one_line(error, 200)
        left_out.append(
            f"{what} could not be drawn ({type(error).__name__}: {reason}); all else is there."
        )


@dataclass(frozen=True)
class Look:
    """The looks of one study; the same arm looks the same in every panel of it.

    A colour stands for a norm, or in a study of one norm in several placements for a placement.
    """

    colours: dict[str, str]
    styles: dict[str, tuple[LineStyle, str]]
    by_placement: bool

    @classmethod
    def of(cls, arms: Sequence[Arm]) -> "Look":
        """Looks for all norms and placements among the arms."""
        styles = placement_styles(arm.placement for arm in arms)
        colours = norm_colours(arm.norm for arm in arms)
        by_placement = len(colours) == 1 < len(styles)
        if by_placement:
            (own,) = colours.values()
            # Pre-LN, which most studies have, keeps the norm's colour.
            colours = _assign_looks(set(styles), {"pre": own}, _FREE_COLOURS, _MORE_COLOURS)
        return cls(colours, styles, by_placement)

    def colour(self, arm: Arm | RunRecord) -> str:
        """The colour of an arm, or of a run, which belongs to one."""
        return self.colours[arm.placement if self.by_placement else arm.norm]

    def line(self, arm: Arm) -> LineStyle:
        """The arm's line style, that of its placement."""
        return self.styles[arm.placement][0]

    def marker(self, arm: Arm) -> str:
        """The arm's marker, that of its placement."""
        return self.styles[arm.placement][1]


def norm_colours(norms: Iterable[str]) -> dict[str, str]:
    """A colour for each norm, that which it has in a study of the same norms."""
    return _assign_looks(set(norms), _NORM_COLOURS, _FREE_COLOURS, _MORE_COLOURS)


def placement_styles(placements: Iterable[str]) -> dict[str, tuple[LineStyle, str]]:
    """A line style and a marker for each placement, those which it has in a study of the same."""
    return _assign_looks(set(placements), _PLACEMENT_STYLES, _FREE_STYLES)


def _assign_looks(
    names: set[str], fixed: dict[str, _T], free: Sequence[_T], more: Sequence[_T] = ()
) -> dict[str, _T]:
    """Known names keep their look; another starts looking for a free one at a place of its own.

    So a norm seldom changes colour between studies, and two share one only when all are taken.
    """
    looks = {name: fixed[name] for name in names if name in fixed}
    for name in sorted(names - set(fixed)):
        # Not `hash`, which differs from process to process.
        first = zlib.crc32(name.encode()) % len(free)
        candidates = [*free[first:], *free[:first], *more]
        used = list(looks.values())
        looks[name] = next((look for look in candidates if look not in used), candidates[0])
    return looks
