"use strict";
// Sorting, finding and copying. Without it the page shows the same, in the order it has.

const words = new Intl.Collator("en", { numeric: true });

function value(row, at) {
  const cell = row.cells[at];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return Number(cell.dataset.value); // NaN where nothing is known
}

function compare(a, b, direction) {
  const missing = (value) => value === "–" || value === "" || Number.isNaN(value);
  if (missing(a) || missing(b)) return missing(a) - missing(b); // last, whichever the direction
  const isNumber = typeof a === "number" && typeof b === "number";
  return direction * (isNumber ? a - b : words.compare(String(a), String(b)));
}

function sort(table, at) {
  const heading = table.tHead.rows[0].cells[at];
  const direction = heading.ariaSort === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row, at), row]);
  rows.sort((first, second) => compare(first[0], second[0], direction));
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((heading, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, at));
    heading.append(button);
  });
}

const form = document.querySelector("form.filter");
const rows = [...document.querySelectorAll("#every tbody tr")]; // none on a measurement's page
const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
const states = rows.map((row) => row.querySelector(".state").textContent);

function filter() {
  const wanted = document.getElementById("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = document.getElementById("state").value;
  let shown = 0;
  rows.forEach((row, at) => {
    const fits = (!state || states[at] === state) && wanted.every((word) => texts[at].includes(word));
    row.hidden = !fits;
    shown += fits;
  });
  document.getElementById("match-count").value = `${shown} of ${rows.length} runs`;
}

if (rows.length > 1) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a browser may remember what was typed
}

if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.after(button);
  }
}
