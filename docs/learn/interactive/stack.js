// A stack of blocks: the numbers of stack_data.js by depth, for one placement among all.
"use strict";

const PLACEMENT_NAMES = { pre: "Pre-LN", post: "Post-LN", sandwich: "Sandwich-LN", output: "Output norm",
  parallel: "Parallel", none: "No norm" };

const stackElement = (name) => document.getElementById(name);

function findModel(placement, depth, std) {
  return STACKS.models.find(
    (model) => model.placement === placement && model.depth === depth && model.std === std);
}

function readStackControls() {
  return {
    placement: document.querySelector('input[name="placement"]:checked').value,
    depth: STACKS.axes.depths[stackElement("depth").value],
    std: STACKS.axes.stds[stackElement("std").value],
  };
}

// Which numbers of all placements cannot be drawn, as they are infinite or NaN; nothing if all can.
function describeMissing(depth, std) {
  const missing = STACKS.axes.placements.flatMap((name) => ["stream", "gradient"].flatMap((quantity) => {
    const values = findModel(name, depth, std)[quantity];
    const [first, last] = [values.indexOf(null) + 1, values.lastIndexOf(null) + 1];
    if (first === 0) return [];
    return [`the ${quantity} of ${PLACEMENT_NAMES[name]} at ${first === last ? `block ${first}` : `blocks ${first} to ${last}`}`];
  }));
  return missing.length === 0 ? "" : `Not finite in fp32 (infinite or NaN), and so not drawn: ${missing.join("; ")}.`;
}

function updateStack() {
  const { placement, depth, std } = readStackControls();
  stackElement("depth-value").value = depth;
  stackElement("std-value").value = std;
  stackElement("depth").setAttribute("aria-valuetext", `${depth} blocks`);
  stackElement("std").setAttribute("aria-valuetext", `${std}`);
  const chosen = findModel(placement, depth, std);
  const others = STACKS.axes.placements.filter((name) => name !== placement);
  for (const quantity of ["stream", "gradient"]) {
    const lines = [...others, placement].map((name) => (
      { name: PLACEMENT_NAMES[name], values: findModel(name, depth, std)[quantity] }));
    const words = quantity === "stream" ? "RMS of the residual stream" : "Length of the gradient with respect to the stream";
    const text = `${words} of ${PLACEMENT_NAMES[placement]} by block: ${chosen[quantity].map(formatNumber).join(", ")}`;
    stackElement(`${quantity}-chart`).innerHTML = drawLines(lines, text);
  }
  const ends = (values) => `${formatNumber(values[0])} after block 1, ${formatNumber(values.at(-1))} after block ${depth}`;
  stackElement("stack-facts").textContent =
    `${PLACEMENT_NAMES[placement]}, ${depth} blocks, standard deviation ${std}: stream ${ends(chosen.stream)}; ` +
    `gradient ${ends(chosen.gradient)}; loss ${formatNumber(chosen.loss)} nats per token (uniform guess: 2.079).`;
  stackElement("stack-missing").textContent = describeMissing(depth, std);
  const row = (name, values) => `<tr><th scope="row">${name}</th>${values.map((value) => `<td>${formatNumber(value)}</td>`).join("")}</tr>`;
  stackElement("stack-table").innerHTML = `<table><thead><tr><th scope="row">block</th>${chosen.stream.map((_, index) => `<th scope="col">${index + 1}</th>`).join("")}</tr></thead><tbody>${row("stream RMS", chosen.stream)}${row("gradient", chosen.gradient)}</tbody></table>`;
}

stackElement("placements").insertAdjacentHTML("beforeend", STACKS.axes.placements.map((name, index) =>
  `<label><input type="radio" name="placement" value="${name}"${index === 0 ? " checked" : ""}>${PLACEMENT_NAMES[name]}</label>`).join(""));
for (const event of ["input", "change"]) stackElement("stack-controls").addEventListener(event, updateStack);
stackElement("stack-controls").addEventListener("submit", (event) => event.preventDefault());
updateStack();
