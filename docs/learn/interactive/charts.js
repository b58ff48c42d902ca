// Charts as SVG text: bars of a token, lines over depth. Colours are in style.css.
"use strict";

function escapeHtml(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return String(text).replace(/[&<>"]/g, (character) => names[character]);
}

// Eight bars around zero. `limit` is the largest magnitude that the axis shows; a larger bar ends
// there. A number that is not finite is written in place of its bar.
function drawBars(values, limit, description, style = "") {
  const [width, height, left, middle, reach] = [400, 132, 62, 62, 50];
  const step = (width - left) / values.length;
  const bars = values.map((value, index) => {
    const x = left + index * step + step * 0.18;
    const label = `<text x="${x + step * 0.32}" y="128" text-anchor="middle">${index + 1}</text>`;
    if (!Number.isFinite(value)) {
      const text = formatNumber(value);
      return `${label}<text class="warning" x="${x + step * 0.32}" y="${middle - 6}" text-anchor="middle">${text}</text>`;
    }
    const part = limit > 0 ? Math.max(-1, Math.min(1, value / limit)) : 0;
    const [top, size] = [middle - Math.max(part, 0) * reach, Math.abs(part) * reach];
    return `${label}<rect class="bar ${style}" x="${x}" y="${top}" width="${step * 0.64}" height="${size}"><title>${formatNumber(value)}</title></rect>`;
  });
  const marks = [limit, 0, -limit].map((value, index) => {
    const y = middle + (index - 1) * reach;
    const text = value === 0 ? "0" : formatDigits(value, 3);
    return `<line class="${index === 1 ? "axis" : "grid"}" x1="${left}" x2="${width}" y1="${y}" y2="${y}"/><text x="${left - 5}" y="${y + 4}" text-anchor="end">${text}</text>`;
  });
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(description)}">${marks.join("")}${bars.join("")}</svg>`;
}

// Lines over blocks 1, 2, … on a logarithmic axis; the last of `lines` is the chosen one.
// Values that are null (not finite) interrupt a line; one between two of them is a dot. A thin
// line leads from the end of each line to its name.
function drawLines(lines, description) {
  const [width, height, left, top, bottom, right] = [440, 240, 46, 10, 208, 342];
  const finite = lines.flatMap((line) => line.values).filter((value) => value !== null && value > 0);
  const low = Math.floor(Math.log10(Math.min(...finite)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...finite))));
  const count = lines[0].values.length;
  const xOf = (index) => left + ((right - left) * index) / Math.max(1, count - 1);
  const yOf = (value) => bottom - ((bottom - top) * (Math.log10(value) - low)) / (high - low);
  const stride = Math.ceil((high - low) / 6);
  const grid = [];
  for (let power = low; power <= high; power += stride) {
    const y = yOf(10 ** power);
    grid.push(`<line class="grid" x1="${left}" x2="${right}" y1="${y}" y2="${y}"/><text x="${left - 5}" y="${y + 4}" text-anchor="end">${formatPower(power)}</text>`);
  }
  const marks = [...new Set([1, Math.round(count / 2), count])].map(
    (block) => `<text x="${xOf(block - 1)}" y="${bottom + 16}" text-anchor="middle">${block}</text>`,
  );
  const paths = lines.map((line, number) => {
    const chosen = number === lines.length - 1;
    let path = "";
    let isDrawing = false;
    line.values.forEach((value, index) => {
      const shown = value !== null && value > 0;
      if (shown) path += `${isDrawing ? "L" : "M"}${xOf(index)} ${yOf(value)}`;
      isDrawing = shown;
    });
    const dots = !chosen ? "" : line.values.map((value, index) =>
      value === null || value <= 0 ? "" : `<circle class="dot" cx="${xOf(index)}" cy="${yOf(value)}" r="${count > 16 ? 2.5 : 4}"><title>block ${index + 1}: ${formatNumber(value)}</title></circle>`).join("");
    const isShown = (value) => value !== undefined && value !== null && value > 0;
    const alone = chosen ? "" : line.values.map((value, index) =>
      isShown(value) && !isShown(line.values[index - 1]) && !isShown(line.values[index + 1])
        ? `<circle class="alone" cx="${xOf(index)}" cy="${yOf(value)}" r="2.5"><title>${escapeHtml(line.name)}, block ${index + 1}: ${formatNumber(value)}</title></circle>` : "").join("");
    return `${alone}<path class="${chosen ? "chosen" : "other"}" d="${path}"><title>${escapeHtml(line.name)}</title></path>${dots}`;
  });
  const ends = lines.map((line, number) => {
    const last = line.values.at(-1);
    const y = last === null || last <= 0 ? top : yOf(last);
    const end = last === null || last <= 0 ? null : y;
    return { name: line.name, y: y + 4, end, style: number === lines.length - 1 ? "name chosen-name" : "name" };
  });
  const names = spreadLabels(ends, 13, top + 6, bottom + 4).map(
    ({ name, y, end, style }) => {
      const leader = end === null ? "" : `<path class="leader" d="M${right + 2} ${end}L${right + 20} ${y - 4}"/>`;
      return `${leader}<text class="${style}" x="${right + 23}" y="${y}">${escapeHtml(name)}</text>`;
    },
  );
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(description)}">${grid.join("")}${names.join("")}<line class="axis" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>${marks.join("")}<text x="${(left + right) / 2}" y="${height - 2}" text-anchor="middle">block</text>${paths.join("")}</svg>`;
}

// Labels at the ends of lines, moved apart to a distance of `step` between `low` and `high`.
function spreadLabels(labels, step, low, high) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  sorted.forEach((label, index) => {
    label.y = Math.max(label.y, low, index > 0 ? sorted[index - 1].y + step : low);
  });
  for (let index = sorted.length - 1; index >= 0; index -= 1) {
    const limit = index === sorted.length - 1 ? high : sorted[index + 1].y - step;
    sorted[index].y = Math.min(sorted[index].y, limit);
  }
  return sorted;
}

function formatPower(power) {
  if (power >= -3 && power <= 3) return String(Number((10 ** power).toPrecision(1)));
  const digits = [...String(power)].map((digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]));
  return `10${digits.join("")}`;
}

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
});
