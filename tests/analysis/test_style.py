from pathlib import Path

from normlab.analysis.arms import Arm
from normlab.analysis.style import Look


def look(*pairs: tuple[str, str]) -> Look:
    return Look.of([Arm(norm, placement, (), ()) for norm, placement in pairs])


def test_known_norms_and_placements_look_the_same_in_every_study() -> None:
    one = look(("rmsnorm", "pre"), ("mynorm", "any"), ("none", "mine"), ("layernorm", "post"))
    assert one.colours["rmsnorm"] == "#0072B2"
    assert one.colours["layernorm"] == "#D55E00"
    assert one.styles["pre"][0] == one.styles["any"][0] == "-"
    assert one.styles["post"] == look(("x", "post")).styles["post"]
    assert one.styles["post"] != one.styles["mine"]


def test_unknown_norms_get_distinct_colours_that_do_not_depend_on_the_order() -> None:
    names = ["rmsnorm", "layernorm", "none", *(f"norm{k}" for k in range(7))]
    forward = look(*((name, f"place{k % 7}") for k, name in enumerate(names)))
    backward = look(*((name, f"place{k % 7}") for k, name in reversed(list(enumerate(names)))))
    assert forward == backward
    assert len(set(forward.colours.values())) == len(names)
    assert len(set(forward.styles.values())) == 7


def test_placements_of_one_norm_differ_in_colour() -> None:
    arms = [Arm("rmsnorm", placement, (), ()) for placement in ("pre", "post", "sandwich")]
    one = Look.of(arms)
    assert one.colour(arms[0]) == Look.of(arms[:1]).colour(arms[0]) == "#0072B2"
    assert len({one.colour(arm) for arm in arms}) == 3
    other = Look.of([*arms, Arm("layernorm", "pre", (), ())])
    assert {other.colour(arm) for arm in arms} == {"#0072B2"}


def test_more_norms_than_colours_is_no_error() -> None:
    assert len(look(*((f"norm{k}", "pre") for k in range(40))).colours) == 40


def test_no_room_of_the_figures_imports_pyplot() -> None:
    import normlab.analysis

    folder = Path(normlab.analysis.__path__[0])
    assert not [path for path in folder.glob("*.py") if "import pyplot" in path.read_text()]
