"""exp, sigmoid, tanh and erf in single precision, without branches, so that they are vectorized.

The coefficients were fitted by weighted least squares at Chebyshev's points, lowest power first;
each function is within a few units in the last place of the true value (tests hold it to that).
"""

from collections.abc import Sequence

from llvmlite import ir

F32, I32 = ir.FloatType(), ir.IntType(32)

_EXP = (1.0, 1.00000004, 0.499999921, 0.166664201, 0.0416682262, 0.00837482206, 0.0013836832)
# tanh(x) / x and erf(x) / x in x², near 0, where 1 - … would lose digits; e^x² (1 - erf(x)) beyond.
_TANH = (0.999999994, -0.333332338, 0.133304994, -0.0536708291, 0.0204301383, -0.00548237468)
_TANH_NEAR = 0.65
_ERF = (
    *(1.12837917, -0.376126323, 0.112836726, -0.0268581079),
    *(0.00519780383, -0.000810602449, 8.21562703e-05),
)
_ERF_NEAR, _ERF_FLAT = 0.95, 4.2
_ERFCX = (
    *(0.98919107, -1.06374004, 0.826620851, -0.473777356, 0.196297836),
    *(-0.0565323689, 0.0106331672, -0.00116569299, 5.61622561e-05),
)
_ROUND = 12582912.0  # 1.5 · 2²³: adding it leaves an integer in the lowest bits
# ln 2 in two parts: the first has so few bits that its product with any whole power is exact.
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
# Below the second, half the power (see `emit_exp`) would be too small for a normal number.
_OVERFLOW, _UNDERFLOW = 88.72283, -86.6


def float_constant(value: float) -> ir.Constant:
    """A number in single precision."""
    return ir.Constant(F32, value)


def emit_exp(build: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e^x; infinite beyond the largest number, 0 below 2.5e-38."""
    # Without any of the fast flags: the rounding is the point.
    shifted = build.fadd(build.fmul(x, float_constant(1.4426950408889634)), float_constant(_ROUND))
    rounded = build.fsub(shifted, float_constant(_ROUND))
    rest = _emit_multiply_add(build, rounded, float_constant(-_LN2_HIGH), x)
    rest = _emit_multiply_add(build, rounded, float_constant(-_LN2_LOW), rest)
    # Half the power, for the largest would not fit where a half of it does.
    exponent = build.shl(build.bitcast(shifted, I32), ir.Constant(I32, 23))
    half = build.bitcast(build.add(exponent, ir.Constant(I32, 126 << 23)), F32)
    value = build.fmul(build.fmul(_emit_polynomial(build, rest, _EXP), half), float_constant(2.0))
    large = build.fcmp_ordered(">", x, float_constant(_OVERFLOW))
    small = build.fcmp_ordered("<", x, float_constant(_UNDERFLOW))
    value = build.select(large, float_constant(float("inf")), value)
    return build.select(small, float_constant(0.0), value)


def emit_sigmoid(build: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x)."""
    return build.fdiv(
        float_constant(1.0), build.fadd(float_constant(1.0), emit_exp(build, build.fneg(x)))
    )


def emit_tanh(build: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent."""
    size = call_intrinsic(build, "fabs", x)
    near = build.fmul(x, _emit_polynomial(build, build.fmul(x, x), _TANH))
    growth = emit_exp(build, build.fadd(size, size))
    far = build.fsub(
        float_constant(1.0),
        build.fdiv(float_constant(2.0), build.fadd(growth, float_constant(1.0))),
    )
    is_near = build.fcmp_ordered("<", size, float_constant(_TANH_NEAR))
    return build.select(is_near, near, call_intrinsic(build, "copysign", far, x))


def emit_erf(build: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The error function."""
    size, square = call_intrinsic(build, "fabs", x), build.fmul(x, x)
    near = build.fmul(x, _emit_polynomial(build, square, _ERF))
    # erf is 1 there in single precision, and the polynomial, infinite at ∞, would give NaN.
    within = build.select(
        build.fcmp_ordered(">", size, float_constant(_ERF_FLAT)), float_constant(_ERF_FLAT), size
    )
    bell = emit_exp(build, build.fneg(square))
    far = build.fsub(float_constant(1.0), build.fmul(bell, _emit_polynomial(build, within, _ERFCX)))
    is_near = build.fcmp_ordered("<", size, float_constant(_ERF_NEAR))
    return build.select(is_near, near, call_intrinsic(build, "copysign", far, x))


def call_intrinsic(build: ir.IRBuilder, intrinsic: str, *values: ir.Value) -> ir.Value:
    """One of LLVM's own functions of single-precision numbers."""
    kind = ir.FunctionType(F32, [F32] * len(values))
    function = build.module.declare_intrinsic(f"llvm.{intrinsic}", [F32], kind)
    return build.call(function, values)


def _emit_polynomial(build: ir.IRBuilder, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    value: ir.Value = float_constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = _emit_multiply_add(build, value, x, float_constant(coefficient))
    return value


def _emit_multiply_add(build: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """A · b + c, rounded once where the processor can."""
    return call_intrinsic(build, "fmuladd", a, b, c)
