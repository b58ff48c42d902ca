// One token through four norms: reads the controls, draws the bars, writes the numbers.
"use strict";

const FORMULAS = {
  LayerNorm: "(x − mean) / √(var + ε)",
  RMSNorm: "x / √(mean x² + ε)",
  DyT: "tanh(α x), α = 1",
  "L∞": `x / (c · max|x| + ε), c = ${LINF_FACTOR.toFixed(3)} at width 8`,
};
const PRESETS = {
  ordinary: { mean: 0, scale: 0, outlier: 0, eps: -5, precision: "fp32", arithmetic: "wide" },
  shifted: { mean: 3, scale: 0, outlier: 0, eps: -5, precision: "fp32", arithmetic: "wide" },
  outlier: { mean: 0, scale: 0, outlier: 20, eps: -5, precision: "fp32", arithmetic: "wide" },
  small: { mean: 0, scale: -3, outlier: 0, eps: -5, precision: "fp32", arithmetic: "wide" },
  overflow: { mean: 0, scale: 2.5, outlier: 0, eps: -5, precision: "fp16", arithmetic: "narrow" },
};
const OUTPUT_LIMIT = 3; // √8 = 2.83 is the most that RMSNorm can give at width 8

const tokenControl = (name) => document.getElementById(name);

function readTokenControls() {
  return {
    mean: Number(tokenControl("mean").value),
    scale: 10 ** Number(tokenControl("scale").value),
    outlier: Number(tokenControl("outlier").value),
    eps: 10 ** Number(tokenControl("eps").value),
    precision: tokenControl("precision").value,
    everyStep: tokenControl("arithmetic").value === "narrow",
    chosen: Number(tokenControl("chosen").value),
  };
}

function setPreset(name) {
  for (const [control, value] of Object.entries(PRESETS[name])) tokenControl(control).value = value;
  updateToken();
}

const listNumbers = (values) => values.map(formatNumber).join(", ");

function describeValues(values) {
  // A mean far below the numbers is the rounding of their sum.
  const isRounding = Math.abs(meanOf(values)) < 1e-6 * largestOf(values);
  const mean = isRounding ? "0" : formatNumber(meanOf(values));
  return `mean ${mean}, RMS ${formatNumber(Math.sqrt(meanSquareOf(values)))}, largest ${formatNumber(largestOf(values))}`;
}

function drawCard(norm, token, settings) {
  const output = outputOf(norm, token, settings);
  const gradient = gradientOf(norm, token, settings.eps, settings.chosen);
  const largest = largestOf(gradient.filter(Number.isFinite));
  const limit = Number.isFinite(largest) && largest > 0 ? largest : 1;
  const number = settings.chosen + 1;
  const row = (name, values) =>
    `<tr><th scope="row">${name}</th>${values.map((value) => `<td>${formatNumber(value)}</td>`).join("")}</tr>`;
  const heads = output.map((_, index) => `<th scope="col">${index + 1}</th>`).join("");
  return `<h3>${norm}</h3><p class="formula">${FORMULAS[norm]}</p>
    <h4>Output</h4>${drawBars(output, OUTPUT_LIMIT, `Output of ${norm}: ${listNumbers(output)}`)}
    <p class="facts">${describeValues(output)}</p>
    <h4>Gradient of output ${number}</h4>${drawBars(gradient, limit, `Gradient of output ${number} of ${norm}: ${listNumbers(gradient)}`, "gradient")}
    <details data-norm="${norm}"><summary>The numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="Numbers of ${norm}"><table>
    <thead><tr><th scope="row">feature</th>${heads}</tr></thead><tbody>${row("output", output)}${row("gradient", gradient)}</tbody></table></div></details>`;
}

function updateToken() {
  const settings = readTokenControls();
  const token = makeToken(settings);
  tokenControl("mean-value").value = settings.mean.toFixed(1);
  tokenControl("scale-value").value = formatNumber(settings.scale);
  tokenControl("outlier-value").value = settings.outlier.toFixed(1);
  tokenControl("eps-value").value = formatNumber(settings.eps);
  // The positions of these two sliders are powers of ten.
  tokenControl("scale").setAttribute("aria-valuetext", formatNumber(settings.scale));
  tokenControl("eps").setAttribute("aria-valuetext", formatNumber(settings.eps));
  const largest = largestOf(token.filter(Number.isFinite));
  const limit = Number.isFinite(largest) && largest > 0 ? largest : 1;
  tokenControl("token-chart").innerHTML = drawBars(token, limit, `The token: ${listNumbers(token)}`);
  tokenControl("token-facts").textContent =
    `${describeValues(token)}; in ${settings.precision} the largest number is ${{ fp32: "3.4e38", bf16: "3.4e38", fp16: "65504" }[settings.precision]}`;
  const opened = new Set([...document.querySelectorAll("#norm-cards details[open]")].map((item) => item.dataset.norm));
  tokenControl("norm-cards").innerHTML = NORMS.map(
    (norm) => `<article class="card">${drawCard(norm, token, settings)}</article>`).join("");
  for (const item of document.querySelectorAll("#norm-cards details")) item.open = opened.has(item.dataset.norm);
}

tokenControl("chosen").innerHTML = PATTERN.map(
  (_, index) => `<option value="${index}">${index + 1}</option>`).join("");
for (const event of ["input", "change"]) tokenControl("token-controls").addEventListener(event, updateToken);
tokenControl("token-controls").addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => setPreset(button.dataset.preset));
}
setPreset("ordinary");
