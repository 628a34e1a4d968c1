// Elements, numbers, limits, CSV, and bars for a score on its scale and for the gate's weights of the
// experts: the same on every page; text never becomes markup.

export const $ = (id) => document.getElementById(id);

// An element with properties (or attributes) and children.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A number as kit/number.py prints it: with a true minus sign, a dash where there is none.
export function number(value, digits = 2, signed = false) {
  if (!Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
}

// Whether a figure lies within limits that a reader typed ("" is none). Compared is what the page
// shows, at two digits or at as many as were typed: an image shown as 3.13 is not below 3.13.
export function within(value, from, to, digits = 2) {
  const shown = (typed) => Number(value.toFixed(Math.max(digits, Math.min((typed.split(".")[1] || "").length, 20))));
  return (from === "" || shown(from) >= Number(from)) && (to === "" || shown(to) <= Number(to));
}

// Where a value lies on a scale, 0 to 1.
export function share(value, { low, high }) {
  return Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
}

export const grouped = (count) => count.toLocaleString("en");

// Lines of cells as CSV. A text that a spreadsheet would take for a formula gets an apostrophe
// before it, as in core/spreadsheets.py.
export function csv(lines) {
  const cell = (value) => {
    const text = String(value);
    const plain = /^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(text);
    const safe = /^(\s*[=+\-@＝＋－＠]|[\t\r\n])/.test(text) && !plain ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

// Hand the reader a file.
export function save(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

const series = (place) => `series-${(place % 8) + 1}`;

// The ends of a score's prediction interval; a dash where the run knows none.
export const interval = ({ low, high }) => (low === null || high === null ? "–" : `${number(low)}…${number(high)}`);

// A score on the scale of the MOS, with its interval as a whisker.
export function measure(image, scale) {
  const { score, low, high } = image;
  const fill = element("span", { class: "fill" });
  fill.style.width = `${100 * share(score, scale)}%`;
  const [start, end] = [low ?? score, high ?? score].map((value) => share(value, scale));
  const whisker = element("span", { class: "interval" });
  whisker.style.left = `${100 * start}%`;
  whisker.style.width = `${100 * (end - start)}%`;
  const title = `${number(score)}, 90 % interval ${interval(image)}, on a scale of ${number(scale.low)} to ${number(scale.high)}`;
  return element("span", { class: "measure", title, role: "img", ariaLabel: title }, fill, whisker);
}

// The weights as parts of one bar.
export function stack(experts, weights) {
  const title = experts.map((expert, k) => `${expert} ${number(weights[k])}`).join(", ");
  const parts = weights.map((weight, k) => {
    const part = element("span", { class: series(k) });
    part.style.flexGrow = weight;
    return part;
  });
  return element("span", { class: "stack", title, role: "img", ariaLabel: `Gate: ${title}` }, ...parts);
}

export function legend(experts) {
  return experts.map((expert, k) => element("span", {}, element("i", { class: series(k) }), expert));
}

// A bar for each weight.
export function gateBars(experts, weights, digits = 2) {
  const rows = experts.flatMap((expert, k) => {
    const fill = element("span", { class: series(k) });
    fill.style.width = `${100 * Math.min(1, Math.max(0, weights[k] || 0))}%`;
    const track = element("span", { class: "track" }, fill);
    return [element("dt", {}, expert), element("dd", {}, track, number(weights[k], digits))];
  });
  return element("dl", { class: "gate" }, ...rows);
}
