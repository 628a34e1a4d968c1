"use strict";
// The gallery: sorts and filters all images, and has one page of them in the document.
const gallery = (() => {
  const PAGE = 60; // rows of 5, 3 and 2 fill it
  const form = document.getElementById("filters");
  const list = document.getElementById("gallery");
  const back = document.getElementById("back");
  const forth = document.getElementById("forth");
  let rows = []; // what passes the filters, in order
  let page = 0;
  let chosen = ""; // the form as it was when rows were chosen
  let group = null; // exact prompt group that a click on a plot asked for

  const lower = report.columns.prompts.map((prompt) => prompt.toLowerCase());
  const paths = report.columns.path.map((path) => path.toLowerCase());

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

  function wanted() {
    const text = form.elements.text.value.trim().toLowerCase();
    const generator = form.elements.generator.value;
    const from = form.elements.from.value;
    const to = form.elements.to.value;
    const code = generator === "" ? -1 : Number(generator);
    const explained = form.elements.explained && form.elements.explained.checked;
    return (row) =>
      report.score(row) !== null &&
      (!explained || report.explanation(row)) &&
      (code < 0 || report.columns.generator[row] === code) &&
      within(report.mos(row), from, to) &&
      (group !== null
        ? report.group(row) === group
        : !text || lower[report.columns.prompt[row]].includes(text) || paths[row].includes(text));
  }

  const filled = () => new URLSearchParams(new FormData(form)).toString();

  function choose() {
    chosen = filled();
    const passes = wanted();
    rows = [];
    for (let row = 0; row < report.count; row += 1) if (passes(row)) rows.push(row);
    const key = keys[form.elements.sort.value];
    const value = new Map(rows.map((row) => [row, key(row)]));
    rows.sort((a, b) => value.get(a) - value.get(b) || a - b);
    page = 0;
    render();
  }

  function tile(row) {
    const button = element("button", { type: "button" }, card.picture(row, page === 0), ...card.words(row));
    button.addEventListener("click", () => detail.open(row, rows));
    return element("li", { "data-row": row }, button);
  }

  function render() {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    const start = page * PAGE;
    list.replaceChildren(...rows.slice(start, start + PAGE).map(tile));
    document.getElementById("found").textContent =
      `${rows.length.toLocaleString("en")} of ${report.count.toLocaleString("en")} images`;
    document.getElementById("page").textContent = `${page + 1} of ${pages}`;
    back.disabled = page === 0;
    forth.disabled = page + 1 >= pages;
  }

  function turn(step) {
    page += step;
    render();
    document.getElementById("pictures").scrollIntoView();
    if (list.firstElementChild) list.firstElementChild.firstElementChild.focus({ preventScroll: true });
  }

  // Show what a click on a plot asked for.
  function ask(filters, asked) {
    form.reset();
    group = null;
    if (filters === "generator") {
      const place = report.columns.generators.indexOf(asked);
      form.elements.generator.value = place < 0 ? "" : String(place);
    } else if (filters === "range") {
      [form.elements.from.value, form.elements.to.value] = asked;
    } else {
      group = asked;
      form.elements.text.value = asked;
    }
    choose();
    document.getElementById("pictures").scrollIntoView();
  }

  function start() {
    report.columns.generators
      .map((name, code) => [name, code])
      .sort((a, b) => (a[0] < b[0] ? -1 : 1))
      .forEach(([name, code]) => {
        form.elements.generator.append(element("option", { value: String(code) }, name || "unknown"));
      });
    form.addEventListener("input", (event) => {
      if (event.target.name === "text") group = null;
      choose();
    });
    form.addEventListener("reset", () => {
      group = null;
      setTimeout(choose);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    back.addEventListener("click", () => turn(-1));
    forth.addEventListener("click", () => turn(1));
    choose();
  }

  return { start, ask, again: choose, rows: () => rows, isStale: () => chosen !== filled() };
})();
