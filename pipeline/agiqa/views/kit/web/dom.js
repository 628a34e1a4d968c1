// Elements, numbers, limits and CSV, the same on every page; text never becomes markup.

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
