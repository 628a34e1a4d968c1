"use strict";
// The page's data, for the scripts that follow: columns of images, one row an image, and pictures
// out of inert blocks that are decoded on first use.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const BLOCK = 128; // pictures in a block, as page.py writes them
  const blocks = new Map();
  const state = { run: 0 };

  function block(id) {
    if (!blocks.has(id)) {
      const element = document.getElementById(id);
      if (!element) return null; // the parser has not come to it yet
      blocks.set(id, JSON.parse(element.textContent));
    }
    return blocks.get(id);
  }

  function address(base64) {
    return base64 ? `data:image/webp;base64,${base64}` : "";
  }

  function picture(kind, row) {
    const found = block(`${kind}-${Math.floor(row / BLOCK)}`);
    return address(found && found[row % BLOCK]);
  }

  const columns = data.columns;
  return {
    data,
    columns,
    state,
    count: columns.path.length,
    run: () => columns.runs[state.run],
    score: (row) => columns.runs[state.run].score[row],
    mos: (row) => columns.mos[row],
    error: (row) => columns.runs[state.run].score[row] - columns.mos[row],
    prompt: (row) => columns.prompts[columns.prompt[row]],
    group: (row) => columns.groups[columns.group[row]],
    generator: (row) => columns.generators[columns.generator[row]],
    path: (row) => columns.path[row],
    small: (row) => picture("picture", row),
    map: (row) => picture("map", row),
    large(row) {
      const kept = block("picture-large");
      return address(kept && kept[row]) || picture("picture", row);
    },
    explanation: (row) => data.explanations[row],
  };
})();

// A number as the tables have it: with a true minus sign, a dash where there is none.
function number(value, digits = 2, signed = false) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
}

// Whether a figure lies within limits that a reader typed ("" is none). Compared is what the page
// shows, at two digits or at as many as were typed: an image shown as 3.13 is not below 3.13.
function within(value, from, to, digits = 2) {
  const shown = (typed) => Number(value.toFixed(Math.max(digits, Math.min((typed.split(".")[1] || "").length, 20))));
  return (from === "" || shown(from) >= Number(from)) && (to === "" || shown(to) <= Number(to));
}

// An element with properties and children; text never becomes markup.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
