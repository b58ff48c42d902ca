"""Numbers of depth: the papers' formulas have the papers' values, and nothing else is run."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.config.expressions import evaluate_condition, evaluate_expression
from normlab.errors import ConfigError

FORMULAS = {
    "DeepNorm's skip": ("(2*L)**0.25", 12, 1, 24**0.25),
    "DeepNorm's init gain": ("(8*L)**-0.25", 12, 1, 1 / 96**0.25),
    "LayerNorm scaling": ("1/sqrt(l)", 4, 3, 1 / math.sqrt(3)),
    "GPT-2's output projections": ("1/sqrt(2*L)", 6, 1, 1 / math.sqrt(12)),
    "KEEL's skip": ("2*L", 6, 1, 12.0),
    "Sub-LN's init gain": ("sqrt(log(2*L))", 6, 1, math.sqrt(math.log(12))),
    "Admin's skip": ("sqrt((2*l+1)/log(2*l+1)-1)", 6, 2, math.sqrt(5 / math.log(5) - 1)),
    "a decay over depth": ("exp(-l/L)", 4, 2, math.exp(-0.5)),
    "powers from the right": ("2**3**2", 1, 1, 512.0),
    "minus after powers": ("-2**2", 1, 1, -4.0),
    "division from the left": ("8/4/2", 1, 1, 1.0),
    "a power of a fraction": ("(l/L)**2", 4, 1, 0.0625),
    "exponents": ("1e-3", 1, 1, 0.001),
}


@pytest.mark.parametrize(("text", "depth", "block", "value"), FORMULAS.values(), ids=FORMULAS)
def test_the_papers_formulas_have_the_papers_values(text, depth, block, value):
    assert evaluate_expression(text, L=depth, l=block) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("number", [0, 1, -2, 0.25, 1e-5])
def test_a_number_is_itself_as_a_float(number):
    value = evaluate_expression(number, L=4)
    assert type(value) is float
    assert value == number


def expressions():
    """Texts of expressions in L and l."""
    number = st.floats(0.01, 100).map(lambda value: repr(round(value, 3)))
    leaf = st.one_of(number, st.sampled_from(["L", "l"]))

    def grown(inner):
        binary = st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join)
        return st.one_of(binary, inner.map("({})".format), inner.map("-{}".format))

    return st.recursive(leaf, grown, max_leaves=12)


@given(text=expressions(), depth=st.integers(1, 64), block=st.integers(1, 64))
def test_signs_and_brackets_bind_as_in_arithmetic(text, depth, block):
    try:
        truth = eval(text, {"L": float(depth), "l": float(block)})
    except ZeroDivisionError:
        with pytest.raises(ConfigError):
            evaluate_expression(text, L=depth, l=block)
    else:
        assert evaluate_expression(text, L=depth, l=block) == truth


REFUSED = [
    # not arithmetic
    "",
    "two",
    "'2'",
    "True",
    "None",
    "1j",
    "[1]",
    "(1, 2)",
    "{'a': 1}",
    "f'{1}'",
    "1 < 2",
    "1 if L else 2",
    "L and 2",
    "not L",
    "~1",
    "L % 2",
    "L // 2",
    "L @ 2",
    "1 << 2",
    "(x := 1)",
    "1; 2",
    "x = 1",
    "1\x00",
    "2 L",
    "lambda: 1",
    "[x for x in (1, 2)]",
    "await L",
    # ways into Python
    "L.real",
    "(1).real",
    "L[0]",
    "__import__('os').getcwd()",
    "open('x')",
    "eval('1')",
    "print(1)",
    "abs(1)",
    "math.sqrt(2)",
    "sqrt.__self__",
    "sqrt",
    "(sqrt)(1)(1)",
    "sqrt()",
    "sqrt(1, 2)",
    "sqrt(x=1)",
    "sqrt(*[1])",
    "sqrt(**{})",
    # no finite value
    "1/0",
    "0**-1",
    "sqrt(-1)",
    "(-1)**0.5",
    "log(0)",
    "log(-1)",
    "1e400",
    "-1e400",
    "1e308 * 10",
    "1e400 - 1e400",
    "exp(1000)",
    "inf",
    "nan",
]


@pytest.mark.parametrize("text", REFUSED)
def test_everything_but_finite_arithmetic_is_refused_by_its_text(text):
    with pytest.raises(ConfigError) as refusal:
        evaluate_expression(text, L=4, l=1)
    assert repr(text) in str(refusal.value)


def test_a_monster_is_refused_at_once():
    # In a process of its own: Python's whole-number powers cannot be interrupted from inside.
    program = """
import sys
from normlab.config.expressions import evaluate_expression, evaluate_condition
from normlab.errors import ConfigError

for text in ("9**9**9", "9**9**9**9", "(9**9)**(9**9)", "9" * 10_000, "(" * 500 + "1" + ")" * 500):
    try:
        sys.exit(f"{text[:20]} is {evaluate_expression(text)}")
    except ConfigError:
        pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize("text", ["-" * 5000 + "1", "1" + "+1" * 5000], ids=["signs", "sum"])
def test_an_expression_without_end_is_refused(text):
    with pytest.raises(ConfigError):
        evaluate_expression(text)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 10**400])
def test_a_number_must_be_finite_too(number):
    with pytest.raises(ConfigError):
        evaluate_expression(number)


@pytest.mark.parametrize("value", [None, [1], {"init": 1}, 1j, b"1/0"])
def test_what_is_neither_a_number_nor_a_text_is_refused(value):
    with pytest.raises(ConfigError):
        evaluate_expression(value)


def test_only_the_names_of_the_place_may_stand_there():
    assert evaluate_expression("L", L=3) == 3
    with pytest.raises(ConfigError):
        evaluate_expression("1/sqrt(l)", L=3)


def test_a_refusal_lists_the_names_and_functions_one_may_use():
    with pytest.raises(ConfigError, match="L, l, sqrt, log, exp"):
        evaluate_expression("depth", L=3, l=1)


def test_floor_rounds_down_to_a_whole_block():
    assert [evaluate_expression("floor(L/4)", L=depth) for depth in (3, 4, 7, 12)] == [0, 1, 1, 3]


DEPTH, CONDITIONS = 12, {
    "Mix-LN: the first quarter": ("l <= L/4", {1, 2, 3}),
    "the ends": ("l == 1 or l == L", {1, 12}),
    "all but the ends": ("not (l == 1 or l == L)", set(range(2, 12))),
    "both sides of l": ("3 < l <= 5", {4, 5}),
    "a chain of three": ("1 <= l < 4 != l + 2", {1, 3}),
    "and binds more than or": ("l == 1 or l > 10 and l < 12", {1, 11}),
    "from a block on": ("l >= floor(0.9 * L)", {10, 11, 12}),
    "but one": ("l != 7", set(range(1, 13)) - {7}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "blocks"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_holds_in_its_blocks(text, blocks):
    assert {l for l in range(1, DEPTH + 1) if evaluate_condition(text, L=DEPTH, l=l)} == blocks


NO_CONDITIONS = ["l", "1", "True", "L/4", "l and L > 1", "not l", "l in L", "l is L", "l = 1"]
NO_CONDITIONS += ["(l < 2) + 1 > 0", "sqrt(l < 2) > 0", "l < 2 < (l < 3)", "k < 1", "", "l <"]


@pytest.mark.parametrize("text", [*NO_CONDITIONS, "l > 1/0", "l == 1 or l > 1/0", True, None])
def test_what_is_not_a_condition_cannot_hold(text):
    with pytest.raises(ConfigError) as refusal:
        evaluate_condition(text, L=4, l=1)
    assert repr(str(text)) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["l <= L/4", "not l == 1", "(l < 2) * 3", "-(l < 2)"])
def test_a_condition_is_not_a_number(text):
    with pytest.raises(ConfigError, match="is a condition"):
        evaluate_expression(text, L=4, l=1)
