// The norms of the interactive page: numbers in, numbers out, nothing of the page itself.
//
// A token is an array of 8 numbers. Gains are 1 and biases 0, as a norm has them before training.
// tests/site compares every function with normlab's own norms in PyTorch.
"use strict";

const WIDTH = 8;
const NORMS = ["LayerNorm", "RMSNorm", "DyT", "L∞"];
// The factor of L∞ (arXiv 1803.01814): c · max|x| is about the RMS of a Gaussian token.
const LINF_FACTOR =
  (1 + Math.sqrt(Math.PI * Math.log(4))) / Math.sqrt(8 * Math.log(WIDTH));
const DYT_ALPHA = 1;

// A zero-mean pattern with RMS 1 (to rounding), all magnitudes different: no two features tie in max|x|.
const PATTERN = [0.62, -1.32, 0.18, 1.76, -0.47, -1.12, 0.95, -0.6];

// --- Rounding ------------------------------------------------------------------------------------

function exponentOf(value) {
  // Of a finite fp32 number that is not 0: floor(log2|value|), from its bits and so exact.
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, value);
  const exponent = (bits.getUint32(0) >>> 23) & 0xff;
  return exponent === 0 ? Math.floor(Math.log2(Math.abs(value))) : exponent - 127;
}

function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

function roundToFormat(value, digits, leastExponent, largest) {
  // `digits` binary digits after the leading one; below 2^leastExponent the spacing stays the same.
  const single = Math.fround(value);
  if (!Number.isFinite(single) || single === 0) return single;
  const spacing = 2 ** (Math.max(exponentOf(single), leastExponent) - digits);
  const rounded = roundHalfToEven(single / spacing) * spacing;
  return Math.abs(rounded) > largest ? Math.sign(rounded) * Infinity : rounded;
}

const ROUNDING = {
  fp32: Math.fround,
  bf16: (value) => roundToFormat(value, 7, -126, (2 - 2 ** -7) * 2 ** 127),
  fp16: (value) => roundToFormat(value, 10, -14, 65504),
};

// --- Tokens --------------------------------------------------------------------------------------

// scale · (pattern + mean), with `outlier` added to feature 4 before scaling; then rounded.
function makeToken({ mean, scale, outlier, precision }) {
  return PATTERN.map((value, feature) =>
    ROUNDING[precision](scale * (value + mean + (feature === 3 ? outlier : 0))),
  );
}

const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const meanSquareOf = (values) => meanOf(values.map((value) => value * value));
const largestOf = (values) =>
  values.some(Number.isNaN) ? NaN : Math.max(...values.map(Math.abs));

// --- Outputs -------------------------------------------------------------------------------------

// What a norm gives for a token. `round` is applied after every operation of the arithmetic.
function normalize(norm, token, eps, round) {
  const inverseRoot = (square) => round(1 / Math.sqrt(round(square + eps)));
  if (norm === "LayerNorm") {
    const mean = round(meanOf(token));
    const centered = token.map((value) => round(value - mean));
    const squares = centered.map((value) => round(value * value));
    const factor = inverseRoot(round(meanOf(squares)));
    return centered.map((value) => round(value * factor));
  }
  if (norm === "RMSNorm") {
    const squares = token.map((value) => round(value * value));
    const factor = inverseRoot(round(meanOf(squares)));
    return token.map((value) => round(value * factor));
  }
  if (norm === "DyT") {
    return token.map((value) => round(Math.tanh(round(DYT_ALPHA * value))));
  }
  const divisor = round(round(LINF_FACTOR * largestOf(token)) + eps);
  return token.map((value) => round(value / divisor));
}

// normlab's norms compute in fp32 and round the result once. With `everyStep`, each operation is
// rounded to the precision of the token instead.
function outputOf(norm, token, { eps, precision, everyStep }) {
  const round = ROUNDING[precision];
  if (everyStep) return normalize(norm, token, eps, round);
  // In fp64 and not in fp32: the difference is far below what is shown.
  return normalize(norm, token, eps, (value) => value).map(round);
}

// --- Gradients -----------------------------------------------------------------------------------

// The gradient of output `chosen` (from 0) by each feature of the token, without rounding: row
// `chosen` of the Jacobian.
function gradientOf(norm, token, eps, chosen) {
  const here = (feature) => (feature === chosen ? 1 : 0);
  if (norm === "LayerNorm") {
    const mean = meanOf(token);
    const centered = token.map((value) => value - mean);
    const root = Math.sqrt(meanSquareOf(centered) + eps);
    return centered.map(
      (value, feature) =>
        (here(feature) - 1 / WIDTH) / root - (centered[chosen] * value) / (WIDTH * root ** 3),
    );
  }
  if (norm === "RMSNorm") {
    const root = Math.sqrt(meanSquareOf(token) + eps);
    return token.map(
      (value, feature) => here(feature) / root - (token[chosen] * value) / (WIDTH * root ** 3),
    );
  }
  if (norm === "DyT") {
    return token.map(
      (value, feature) => here(feature) * DYT_ALPHA * (1 - Math.tanh(DYT_ALPHA * value) ** 2),
    );
  }
  const largest = largestOf(token);
  const divisor = LINF_FACTOR * largest + eps;
  // Features that tie share the gradient of the maximum equally, as in PyTorch's amax.
  const ties = token.filter((value) => Math.abs(value) === largest).length;
  return token.map((value, feature) => {
    const ofMaximum = Math.abs(value) === largest ? Math.sign(value) / ties : 0;
    return here(feature) / divisor - (token[chosen] * LINF_FACTOR * ofMaximum) / divisor ** 2;
  });
}

// --- Numbers as text -----------------------------------------------------------------------------

// Not by a default of `digits`: `values.map(formatNumber)` would give it the index.
const formatNumber = (value) => formatDigits(value, 4);

function formatDigits(value, digits) {
  if (value === null || Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "−inf";
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 10 ** Math.max(digits, 5))
      ? value.toExponential(2)
      : size >= 10 ** digits ? value.toFixed(0) : value.toPrecision(digits);
  return text.replaceAll("-", "−");
}
