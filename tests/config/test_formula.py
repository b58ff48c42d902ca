"""What a formula may say; what it may not is refused in one sentence that points at the place."""

import subprocess
import sys

import pytest

from normlab.config.formula import check_formula
from normlab.errors import ConfigError

WIDTH = 16
GAIN = {"gain": {"init": 1}}


def formula(expression, parameters=None, constants=None, **others):
    config = {"_target_": "normlab.norms.Formula", "expression": expression, **others}
    if parameters is not None:
        config["parameters"] = parameters
    if constants is not None:
        config["constants"] = constants
    return config


def refusal(config):
    with pytest.raises(ConfigError) as error:
        check_formula("norm", config, WIDTH)
    return str(error.value)


ACCEPTED = {
    "no parameters": formula("x / sqrt(mean(x**2) + 1e-6)"),
    "a gain": formula("gain * x / (mean(abs(x)) + eps)", GAIN, {"eps": 1e-5}),
    "a text for a number": formula("gain * x + eps", GAIN, {"eps": "1e-5"}),
    "of width": formula("g * x", {"g": {"init": "sqrt(width)", "per": "scalar"}}, {}),
    "a token and a feature give both": formula("mean(x) * gain", GAIN),
    "a statistic of a parameter": formula("x / rms(gain)", GAIN),
    "conditions": formula("where(x > 0 and not -1 <= mean(x) <= 1 or x == width, x, gain)", GAIN),
    "lines": formula("gain\n  * x /\n\n\trms(x)", GAIN),
    "nothing there": formula("x", None, None),
    "empty": formula("x", {}, {}),
    "hydra's": formula("x", _partial_=True),
    "a branch by width": formula("where(width > 8, x, gain_that(x))".replace("gain_that", "tanh")),
}


@pytest.mark.parametrize("config", ACCEPTED.values(), ids=ACCEPTED)
def test_a_formula_that_gives_a_norm_is_accepted(config):
    check_formula("norm", config, WIDTH)


# An expression, what is pointed at in it, and words of the sentence. gain and eps are there.
POINTED = [
    # names and functions
    ("gain * y", "y", "y is unknown; names are x, index, gain, eps, width"),
    ("gian * x", "gian", "did you mean gain?"),
    ("gain * x / RMS(x)", "RMS", "did you mean rms?"),
    ("gain * x / foo(x)", "foo", "unknown function; functions are mean, sum"),
    ("gain * x / eps(x)", "eps", "eps is not a function"),
    ("gain * x / rms", "rms", "write rms(…)"),
    ("gain * abs(x, 2)", "abs(x, 2)", "abs has 2 arguments; it takes 1."),
    ("gain * minimum(x)", "minimum(x)", "minimum has 1 argument; it takes 2"),
    ("gain * mean()", "mean()", "mean has 0 arguments"),
    # kinds
    ("gain + 1", "gain + 1", "gives one number a feature, the same for every token"),
    ("gain * 0 + mean(gain)", "gain * 0 + mean(gain)", "must give one a feature of each token"),
    ("mean(gain * x)", "mean(gain * x)", "gives one number a token"),
    ("rms(x) + sum(gain)", "rms(x) + sum(gain)", "gives one number a token"),
    ("mean(gain)", "mean(gain)", "it gives one number;"),
    ("2", "2", "it gives one number;"),
    ("gain * x / mean(eps)", "eps", "mean reduces over the features, and this is one number"),
    ("gain * x / sum(width)", "width", "sum reduces"),
    ("gain * (x - mean(mean(x) + 1))", "mean(x) + 1", "this is one number a token"),
    ("gain * x / mean(2 * 3)", "2 * 3", "mean reduces"),
    # conditions
    ("gain * (x > 0)", "x > 0", "is a condition where a number must stand"),
    ("x > gain", "x > gain", "only the first argument of where"),
    ("where(x, gain, 0)", "x", "is not a condition; a condition compares with"),
    ("where(x > 0, x > 1, gain)", "x > 1", "is a condition"),
    ("where(x > 0 and gain, x, gain)", "gain", "is not a condition"),
    ("where(not x, x, gain)", "x", "is not a condition"),
    ("where((x > 0) < 1, x, gain)", "x > 0", "is a condition"),
    ("where(0 < where(x > 1, x, 0) < 2, x, gain)", "where(x > 1, x, 0)", "middle of a chain"),
    # constants without a value
    ("gain * x + 1 / (eps - eps)", "1 / (eps - eps)", "no value: float division by zero"),
    ("gain * x + sqrt(-eps)", "sqrt(-eps)", "no value"),
    ("gain * x + (-2) ** 0.5", "(-2) ** 0.5", "a root of a negative number"),
    ("gain * x * 9 ** 9 ** 9", "9 ** 9 ** 9", "no value"),
    ("gain * x + 1e999", "1e999", "too large"),
    ("gain * x + " + "9" * 400, "9" * 400, "too large"),
    # ways into Python
    ("gain * x.real", "x.real", "an attribute is not allowed; only numbers, names"),
    ("gain * x[0]", "x[0]", "an index"),
    ("gain * x.sum()", "x.sum", "an attribute is not allowed"),
    ("gain * sum(x, dim=-1)", "dim=-1", "without names"),
    ("gain * sum(*x)", "*x", "a starred argument"),
    ("gain * sum(**x)", "**x", "without names"),
    ("gain * __import__('os').system('true')", "__import__('os').system", "not allowed"),
    ("gain * __import__(x)", "__import__", "unknown function"),
    ("gain * eval(x)", "eval", "unknown function"),
    ("gain * x + 'a'", "'a'", "a text"),
    ("gain * x + b'a'", "b'a'", "a text"),
    ("gain * x + f'{x}'", "f'{x}'", "a text"),
    ("(lambda x: x)(gain)", "lambda x: x", "a lambda is not allowed"),
    ("gain * (lambda: x)", "lambda: x", "a lambda"),
    ("sum([x for x in gain])", "[x for x in gain]", "a comprehension"),
    ("gain * (y := x)", "y := x", "an assignment"),
    ("gain * (x if x else 1)", "x if x else 1", "if … else"),
    ("gain * (x, 1)", "(x, 1)", "a list"),
    ("gain * [x]", "[x]", "a list"),
    ("gain * {x}", "{x}", "a list"),
    ("gain * {}", "{}", "a list"),
    ("gain * True", "True", "not allowed"),
    ("gain * None", "None", "not allowed"),
    ("gain * 1j", "1j", "not allowed"),
    ("gain * ...", "...", "not allowed"),
    ("gain * (await x)", "await x", "not allowed"),
    ("gain * (yield x)", "yield x", "not allowed"),
    ("gain * ~x", "~x", "not allowed"),
    ("gain * (x in x)", "x in x", "not allowed"),
    # other signs
    ("gain * x ^ 2", "^", "powers are written **"),
    ("(gain * x) % (2)", "%", "use + - * / **"),
    ("gain @ x", "@", "not an operator"),
    ("gain * x // 2", "//", "not an operator"),
    ("gain × x", "×", "no meaning here"),
    ("gain * x²", "²", "no meaning here"),
    ("gain * x # all", "#", "no meaning here"),
    ("gain * \x00x", "\x00", "no meaning here"),
    ("gain * \u0445", "\u0445", "no meaning here"),
    # syntax
    ("gain * (x + 1", "(", "never closed"),
    ("gain * x)", ")", "unmatched"),
    ("gain * (x]", "]", "does not match"),
    ("import os", "import", "cannot be read"),
    ("exec x", "exec x", "cannot be read"),
    ("x; gain", ";", "cannot be read"),
    ("", "", "it is empty"),
    (" \n ", "", "it is empty"),
    ("gain * x" + " + x" * 200, None, "it has 808 characters; at most 500"),
    ("-" * 60 + "gain * x", None, "too many operations in one another or in a row; at most 40"),
    ("gain * " + "(" * 100 + "-" * 60 + "x" + ")" * 100, None, "too many operations"),
    ("gain * " + "abs(" * 45 + "x" + ")" * 45, None, "too many operations"),
    ("gain * " + "(" * 201 + "x" + ")" * 201, None, "cannot be read"),
]


@pytest.mark.parametrize(("expression", "part", "words"), POINTED, ids=[p[0][:40] for p in POINTED])
def test_a_mistake_in_the_expression_is_pointed_at(expression, part, words):
    sentence, shown, carets = refusal(formula(expression, GAIN, {"eps": 1e-5})).split("\n")
    assert sentence.startswith("norm.expression: ")
    assert sentence.endswith(".")
    assert words in sentence
    assert carets.lstrip(" ~") == carets.strip()
    start, length = carets.index("^"), len(carets.strip())
    pointed = shown[start : start + length]
    if part is None or len(part) > 50:
        assert len(carets) <= len(shown) <= 84
    else:
        assert pointed == part.replace("\x00", "?")


def test_of_a_long_expression_the_lines_around_the_mistake_are_shown():
    expression = "gain * x" + " + tanh(x)" * 20 + " + tonh(x)" + " + tanh(x)" * 15
    _, shown, carets = refusal(formula(expression, GAIN)).split("\n")
    start = carets.index("^")
    assert shown[start : start + 4] == "tonh"
    assert len(shown) <= 84
    assert shown.strip().startswith("…")
    assert shown.endswith("…")


def test_line_breaks_are_spaces_and_pointers_follow_them():
    _, shown, carets = refusal(formula("gain *\n\n   x /\n  rmz(x)\n", GAIN)).split("\n")
    assert shown.strip() == "gain * x / rmz(x)"
    assert shown[carets.index("^") :].startswith("rmz(x)")


# What is wrong beside the expression: one line that starts with the key.
BESIDE = {
    "unknown key": (formula("x", parametrs={}), "norm.parametrs", "did you mean parameters?"),
    "unused": (formula("x", GAIN), "norm.parameters.gain", "no gradient"),
    "behind detach": (formula("x * detach(gain)", GAIN), "norm.parameters.gain", "no gradient"),
    "in a condition": (formula("where(x > gain, x, 0)", GAIN), "norm.parameters.gain", "detach"),
    "in a sign": (formula("x * sign(gain)", GAIN), "norm.parameters.gain", "sign"),
    "in a dead branch": (formula("where(width > 1, x, x * gain)", GAIN), "norm.parameters.gain",
                         "no gradient"),
    "no expression": ({"_target_": "normlab.norms.Formula"}, "norm.expression=None", "a text"),
    "a number": (formula(3), "norm.expression=3", "a text"),
    "a list of names": (formula("x", ["gain"]), "norm.parameters=['gain']", "a mapping"),
    "a bare number": (formula("x", {"gain": 1}), "norm.parameters.gain=1", "init: number"),
    "no init": (formula("x", {"gain": {}}), "norm.parameters.gain={}", "init: number"),
    "a third key": (formula("x", {"gain": {"init": 1, "pre": 1}}), "norm.parameters.gain=", "per"),
    "per": (formula("x", {"gain": {"init": 1, "per": "token"}}), "norm.parameters.gain.per=token",
            "feature or scalar"),
    "per is a list": (formula("x", {"gain": {"init": 1, "per": []}}), "norm.parameters.gain.per=[]",
                      "feature or scalar"),
    "init nan": (formula("x", {"gain": {"init": float("nan")}}), "norm.parameters.gain.init",
                 "finite"),
    "init text": (formula("x", {"gain": {"init": "L"}}), "norm.parameters.gain.init", "width"),
    "init true": (formula("x", {"gain": {"init": True}}), "norm.parameters.gain.init", "number"),
    "init huge": (formula("x", {"gain": {"init": 1e39}}), "norm.parameters.gain.init", "too large"),
    "constant": (formula("x", None, {"eps": "1/0"}), "norm.constants.eps", "1/0"),
    "constant null": (formula("x", None, {"eps": None}), "norm.constants.eps", "None"),
    "not a word": (formula("x", {"a b": {"init": 1}}), "norm.parameters.a b", "is not a name"),
    "a keyword": (formula("x", {"lambda": {"init": 1}}), "norm.parameters.lambda", "is not a name"),
    "not plain": (formula("x", {"γ": {"init": 1}}), "norm.parameters.γ", "plain letters"),
    "not a text": (formula("x", {1: {"init": 1}}), "norm.parameters.1", "is not a name"),
    "yes": (formula("x", None, {True: 1}), "norm.constants.True", "is not a name"),
    "x": (formula("x", {"x": {"init": 1}}), "norm.parameters.x", "there already"),
    "width": (formula("x", None, {"width": 1}), "norm.constants.width", "there already"),
    "a function's": (formula("x", {"rms": {"init": 1}}), "norm.parameters.rms", "is a function"),
    "where": (formula("x", None, {"where": 1}), "norm.constants.where", "is a function"),
    "twice": (formula("gain * x", GAIN, {"gain": 1}), "norm.parameters.gain", "there already"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "key", "words"), BESIDE.values(), ids=BESIDE)
def test_a_mistake_beside_the_expression_is_one_sentence(config, key, words):
    sentence = refusal(config)
    assert sentence.startswith(key)
    assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_the_key_in_the_sentence_is_that_of_the_site():
    with pytest.raises(ConfigError, match=r"^placement\.qk\.expression: y is unknown"):
        check_formula("placement.qk", formula("x * y"), WIDTH)


def test_nothing_is_run_and_monsters_are_refused_at_once():
    # In a process of its own, whose clock and whose modules can be looked at.
    program = """
import sys
from normlab.config.formula import check_formula
from normlab.errors import ConfigError

for text in (
    "x * 9**9**9", "x * 9**9**9**9", "x * (9**9)**(9**9)", "x + " + "9" * 490, "x" + "**9" * 150,
    "(" * 240 + "x" + ")" * 240, "[" * 490, "-" * 490 + "x", "not " * 120 + "x", "x" * 10**6,
    "x < " * 120 + "x", "lambda: " * 60 + "x", "f'" + "{" * 400, "x if x else " * 40 + "x",
    "where(0<" * 20 + "x" + "<1,x,0)" * 20, "where(x<" * 40 + "x" + ",x,0)" * 40,
    "__import__('sys').exit(3)", "print(x)", "[sys.exit(3) for sys in x]",
):
    try:
        check_formula("norm", {"expression": text}, 16)
        sys.exit(f"{text[:20]} was accepted")
    except ConfigError as error:
        assert str(error).count(chr(10)) == 2, error
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True
    )
    assert done.stdout == ""


def test_the_command_refuses_a_wrong_formula(train_py, tmp_path):
    def asked(*overrides):
        return train_py("norm=l1", *overrides, f"output_dir={tmp_path / 'outputs'}")

    answer = asked("norm.expression='gain * x / (mean(abs(y)) + eps)'")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "normlab: norm.expression: y is unknown; names are x, index, gain, c, eps, width.",
        "  gain * x / (mean(abs(y)) + eps)",
        "                       ^",
    ]
    for override, words in {
        "norm.epss=1": "norm.epss is not a key",
        "+norm.epss=1": "norm.epss is not a key of a formula",
        "norm.parameters.gain.init=[1]": "norm.parameters.gain.init",
        "+norm.parameters.gain.per=token": "norm.parameters.gain.per=token",
        "+norm.parameters.b.init=0": "norm.parameters.b would get no gradient",
        "placement.qk={_target_: normlab.norms.Formula, expression: y}": "placement.qk.expression",
    }.items():
        answer = asked(override)
        assert (answer.code, words in answer.err) == (2, True), answer.err
    assert not (tmp_path / "outputs").exists()


def test_the_norm_of_queries_and_keys_has_the_width_of_a_head(train_py, tmp_path):
    formula = "{_target_: normlab.norms.Formula, expression: 'x * sqrt(width - 64)'}"
    # The model is 128 wide and has 4 heads.
    missing = f"data.path={tmp_path / 'missing.txt'}"
    assert "missing.txt" in train_py(f"placement.input={formula}", "data=text", missing).err
    answer = train_py(f"placement.qk={formula}", "data=text", missing)
    assert answer.err.startswith("normlab: placement.qk.expression: it has no value")


@pytest.mark.parametrize(
    ("overrides", "widths"),
    [
        ("placement.qk=FORMULA", [8]),
        ("placement.head_norm=all placement.qk=FORMULA", [32, 16]),
        ("placement.head_norm=all placement.v=FORMULA", [16]),
        ("placement.attention.inner=FORMULA", [32]),
        ("placement.feedforward.inner=FORMULA", [96]),
        ("placement.inner=FORMULA", [32, 96]),
        ("placement.final=FORMULA", [32]),
        ("+placement.blocks.a={where:'l<2',feedforward:{inner:FORMULA}}", [96]),
        (
            "norm=rmsnorm placement.feedforward.norm=FORMULA placement.feedforward.inner=true",
            [32, 96],
        ),
        ("norm=l1 norm.expression='gain*EXPRESSION' placement=pre placement.qk=true", [32, 8]),
    ],
)
def test_a_formula_is_checked_at_the_widths_of_its_sites(overrides, widths, specified):
    shape = ["model.width=32", "model.heads=4", "model.kv_heads=2", "model.hidden_ratio=3"]

    def compose(allowed):
        # The square root has a value at these widths alone.
        distances = "*".join(f"abs(width-{width})" for width in allowed)
        norm = "{_target_:normlab.norms.Formula,expression:'EXPRESSION'}"
        text = overrides.replace("FORMULA", norm).replace("EXPRESSION", f"(x+sqrt(-{distances}))")
        specified(*shape, *text.split())

    compose(widths)
    for width in widths:
        with pytest.raises(ConfigError, match="it has no value"):
            compose([other for other in (8, 16, 32, 96) if other != width])


def test_everything_of_a_formula_may_be_overridden(train_py, tmp_path):
    # What is wrong here is looked at last: the formula has passed.
    missing = tmp_path / "missing.txt"
    for overrides in (
        ["norm.parameters.gain.init=0.5"],
        ["norm.parameters.gain.init='1/sqrt(width)'"],
        ["+norm.parameters.gain.per=scalar"],
        ["norm.constants.eps=1"],
        ["norm.expression=gain*x+c*eps"],
        ["+norm.constants.k=2", "norm.expression=gain*x*c*eps/k"],
        ["+norm.parameters.b.init=0", "norm.expression='b + gain * x / rms(x)'"],
        ["-m", "norm.expression='gain * x','gain * tanh(x)'"],
    ):
        answer = train_py("norm=l1", *overrides, "data=text", f"data.path={missing}")
        assert answer.code in (1, 2)
        assert answer.err.count("\n") == 1, answer.err
        assert str(missing) in answer.err
