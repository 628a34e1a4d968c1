// The page's data, columns of images, one row an image; and the images: in the card beside the main
// plot, in the gallery, and one by one in the dialog. Pictures stand in inert blocks that are decoded
// on first use.
import { $, element, gateBars, grouped, number, share, within } from "../kit/web/dom.js";
import { Gallery, Viewer } from "../kit/web/gallery.js";

const data = JSON.parse($("data").textContent);
const { columns } = data;
const BLOCK = 128; // pictures in a block, as page.py writes them
const blocks = new Map();

function block(id) {
  if (!blocks.has(id)) {
    if (!$(id)) return null; // the parser has not come to it yet
    blocks.set(id, JSON.parse($(id).textContent));
  }
  return blocks.get(id);
}

const address = (base64) => (base64 ? `data:image/webp;base64,${base64}` : "");

function picture(kind, row) {
  const pictures = block(`${kind}-${Math.floor(row / BLOCK)}`);
  return address(pictures && pictures[row % BLOCK]);
}

export const report = {
  ...data,
  current: 0, // which of several runs is shown
  rows: columns.path.map((_, row) => row),
  run: () => columns.runs[report.current],
  score: (row) => report.run().score[row],
  mos: (row) => columns.mos[row],
  error: (row) => report.score(row) - columns.mos[row],
  prompt: (row) => columns.prompts[columns.prompt[row]],
  group: (row) => columns.groups[columns.group[row]],
  generator: (row) => columns.generators[columns.generator[row]],
  path: (row) => columns.path[row],
  small: (row) => picture("picture", row),
  map: (row) => picture("map", row),
  large: (row) => address((block("picture-large") || {})[row]) || report.small(row),
};

// MOS as a ring, score as a diamond, the gap between them, on the scale of the MOS.
function scaleMark(row) {
  const at = (value) => Math.round(share(value, report) * 1000) / 10;
  const [mos, score] = [at(report.mos(row)), at(report.score(row))];
  const mark = (className, left) => {
    const made = element("i", { className });
    made.style.left = `${left}%`;
    return made;
  };
  const gap = mark("span", Math.min(mos, score));
  gap.style.width = `${Math.abs(mos - score)}%`;
  return element("span", { className: "scale", ariaHidden: "true" }, gap, mark("dot truth", mos), mark("dot score", score));
}

function pictureOf(row, large) {
  const source = large ? report.large(row) : report.small(row);
  if (!source) return element("div", { className: "absent" }, "not available");
  return element("img", { src: source, alt: report.prompt(row) || report.path(row), decoding: "async" });
}

export const gateOf = (row) =>
  gateBars(report.run().experts, report.run().gate.map((column) => column[row]), 3);

function wordsOf(row) {
  const [prompt, path] = [report.prompt(row), report.path(row)];
  const figures = element("span", { className: "figures" },
    `${report.truth === "MOS" ? "MOS" : "true"} `, element("b", {}, number(report.mos(row))),
    ", score ", element("b", {}, number(report.score(row))),
    element("span", { className: "error" }, ` (${number(report.error(row), 2, true)})`));
  return [
    scaleMark(row),
    figures,
    ...(prompt ? [element("span", { className: "prompt", title: prompt }, prompt)] : []),
    element("span", { className: "from", title: path }, report.generator(row) || path),
  ];
}

export function showCard(row) {
  const frame = element("button", { type: "button", className: "picture", ariaLabel: `Open ${report.path(row)}` }, pictureOf(row, true));
  frame.addEventListener("click", () => openImage(row));
  $("card").replaceChildren(frame, ...wordsOf(row), gateOf(row));
}

// The gallery.

const PAGE = 60; // rows of 5, 3 and 2 fill it
const form = $("filters");
const { sort, text, generator, from, to, explained } = form.elements;
let group = null; // exact prompt group that a click on a plot asked for
let filled = ""; // the form as it was when images were chosen

const keys = {
  worst: (row) => -Math.abs(report.error(row)),
  best: (row) => Math.abs(report.error(row)),
  high: (row) => -report.error(row),
  low: (row) => report.error(row),
  "mos-down": (row) => -report.mos(row),
  "mos-up": (row) => report.mos(row),
  "score-down": (row) => -report.score(row),
  "score-up": (row) => report.score(row),
  name: (row) => row, // rows are in the order of the names
  change: (row) => -Math.abs(report.score(row) - report.columns.runs[0].score[row]),
};
const formContent = () => new URLSearchParams(new FormData(form)).toString();

export const gallery = new Gallery({
  list: $("gallery"),
  part: PAGE,
  items: () => report.rows,
  passes() {
    filled = formContent();
    const words = text.value.trim().toLowerCase();
    const holds = (name) => name.toLowerCase().includes(words);
    return (row) =>
      report.score(row) !== null &&
      (!explained?.checked || report.explanations[row]) &&
      (generator.value === "" || report.columns.generator[row] === Number(generator.value)) &&
      within(report.mos(row), from.value, to.value) &&
      (group !== null
        ? report.group(row) === group
        : !words || holds(report.prompt(row)) || holds(report.path(row)));
  },
  order() {
    const key = keys[sort.value];
    return (a, b) => key(a) - key(b) || a - b;
  },
  tile(row) {
    const button = element("button", { type: "button" }, pictureOf(row, this.start === 0), ...wordsOf(row));
    button.addEventListener("click", () => openImage(row, this.shown));
    return element("li", { "data-row": row }, button);
  },
  drawn() {
    $("found").textContent = `${grouped(this.shown.length)} of ${grouped(report.rows.length)} images`;
    $("page").textContent = `${this.start / PAGE + 1} of ${Math.max(1, Math.ceil(this.shown.length / PAGE))}`;
    $("back").disabled = this.start === 0;
    $("forth").disabled = this.end >= this.shown.length;
  },
});

export const galleryIsStale = () => filled !== formContent();

function turn(by) {
  gallery.show(gallery.start + by * PAGE);
  $("pictures").scrollIntoView();
  gallery.list.querySelector("button")?.focus({ preventScroll: true });
}

// Show what a click on a plot asked for: a generator, a range of the MOS, or a group's prompt.
export function filterBy(kind, value) {
  form.reset();
  group = null;
  if (kind === "generator") {
    const code = report.columns.generators.indexOf(value);
    generator.value = code < 0 ? "" : String(code);
  } else if (kind === "range") {
    [from.value, to.value] = value;
  } else {
    text.value = group = value;
  }
  gallery.choose();
  $("pictures").scrollIntoView();
}

export function startGallery() {
  report.columns.generators
    .map((name, code) => [name, code])
    .sort((a, b) => (a[0] < b[0] ? -1 : 1))
    .forEach(([name, code]) => generator.append(new Option(name || "unknown", code)));
  form.addEventListener("input", (event) => {
    if (event.target.name === "text") group = null;
    gallery.choose();
  });
  form.addEventListener("reset", () => {
    group = null;
    setTimeout(() => gallery.choose());
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  $("back").addEventListener("click", () => turn(-1));
  $("forth").addEventListener("click", () => turn(1));
  gallery.choose();
}

// The dialog: picture, map, figures, gate, reasons, alike rated images.

function factsOf(row) {
  const { runs, splits } = report.columns;
  const facts = [[report.truth, number(report.mos(row), 3)]];
  runs.forEach((run, place) => {
    const error = run.score[row] === null ? null : run.score[row] - report.mos(row);
    facts.push([runs.length > 1 ? `Score, ${run.name}` : "Score", `${number(run.score[row], 3)} (${number(error, 3, true)})`]);
    if (place === report.current) facts.push(["Tested in", `${splits[row]} split${splits[row] === 1 ? "" : "s"}`]);
  });
  if (report.generator(row)) facts.push(["Generator", report.generator(row)]);
  facts.push(["File", report.path(row)]);
  return element("dl", { className: "facts" },
    ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

const known = (value) => value !== null && value !== undefined;

function reasonsOf({ reasons = [] } = {}) {
  if (!reasons.length) return [];
  const entries = reasons.map(([aspect, words, answer, percentile, strength]) => {
    const figures = [
      String(aspect || "").replaceAll("_", " "),
      known(answer) && `answer ${typeof answer === "number" ? number(answer) : answer}`,
      known(percentile) && `percentile ${number(percentile, 1)}`,
      known(strength) && `strength ${number(strength)}`,
    ];
    return element("li", {}, words || aspect, element("small", {}, ` ${figures.filter(Boolean).join(", ")}`));
  });
  return [element("h3", {}, "Reasons"), element("ul", { className: "reasons" }, ...entries)];
}

function neighboursOf({ neighbours = [] } = {}) {
  if (!neighbours.length) return [];
  const entries = neighbours.map(([row, path, mos, score, similarity]) => {
    const figures = [`rated ${number(mos)}`, known(score) && `score ${number(score)}`, known(similarity) && `alike ${number(similarity)}`];
    const words = element("small", {}, figures.filter(Boolean).join(", "));
    if (row < 0) return element("li", {}, element("span", { className: "from" }, path), words);
    const button = element("button", { type: "button", title: path }, pictureOf(row, false), words);
    button.addEventListener("click", () => openImage(row));
    return element("li", {}, button);
  });
  return [element("h3", {}, "Alike, and rated"), element("ul", { className: "neighbours" }, ...entries)];
}

const buttons = { back: $("detail-back"), forth: $("detail-forth"), close: $("detail-close") };
const viewer = new Viewer($("detail"), buttons, (row, place, rows) => {
  const map = report.map(row);
  const maps = map ? [element("img", { src: map, alt: "Map of where the score comes from" })] : [];
  const gate = report.run().experts.length ? [element("h3", {}, "Gate"), gateOf(row)] : [];
  $("detail-content").replaceChildren(
    element("div", { className: "pictures" }, pictureOf(row, true), ...maps),
    element("div", {},
      element("h2", { id: "detail-title" }, report.prompt(row) || report.path(row)),
      scaleMark(row), factsOf(row), ...gate,
      ...reasonsOf(report.explanations[row]), ...neighboursOf(report.explanations[row])));
  $("detail-place").textContent = rows.length > 1 ? `${grouped(place + 1)} of ${grouped(rows.length)}` : "";
});

export function openImage(row, rows = [row]) {
  viewer.open(rows, Math.max(0, rows.indexOf(row)));
  viewer.dialog.scrollTop = 0;
}
