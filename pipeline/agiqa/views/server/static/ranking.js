// The table of all images: ranked, sorted, filtered, downloaded.

import { element, inTraining, legend, measure, stack, two, within } from "./drawing.js";

const $ = (id) => document.getElementById(id);

export class Ranking {
  constructor(facts, onChoose) {
    this.facts = facts;
    this.onChoose = onChoose;
    this.entries = [];
    this.rows = new Map(); // of entries
    this.sort = { by: "score", down: true };
    this.chosen = null;
    $("scale-low").textContent = two(facts.scale.low);
    $("scale-name").textContent = facts.target;
    $("scale-high").textContent = two(facts.scale.high);
    $("gate-legend").replaceChildren("Gate: ", ...legend(facts.experts));
    for (const head of document.querySelectorAll("th[data-sort]")) {
      head.querySelector("button").onclick = () => this.sortBy(head.dataset.sort);
    }
    for (const id of ["filter-name", "filter-low", "filter-high"]) $(id).oninput = () => this.show();
    $("rows").onkeydown = (event) => this.step(event);
    $("download").onclick = () => this.download();
  }

  add(entry) {
    this.entries.push(entry);
    this.later();
  }

  changed(entry) {
    this.rows.delete(entry);
    this.later();
  }

  remove(entry) {
    this.entries = this.entries.filter((each) => each !== entry);
    this.rows.delete(entry);
    this.later();
  }

  clear() {
    this.entries = [];
    this.rows.clear();
    this.chosen = null;
    this.show();
  }

  sortBy(key) {
    const down = this.sort.by === key ? !this.sort.down : key !== "name";
    this.sort = { by: key, down };
    for (const head of document.querySelectorAll("th[data-sort]")) {
      if (head.dataset.sort !== key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", down ? "descending" : "ascending");
    }
    this.show();
  }

  // Many answers may come in one frame; the table is drawn once.
  later() {
    if (this.soon) return;
    this.soon = true;
    requestAnimationFrame(() => { this.soon = false; this.show(); });
  }

  visible() {
    const name = $("filter-name").value.trim().toLowerCase();
    const low = $("filter-low").value;
    const high = $("filter-high").value;
    const scored = this.entries.filter((each) => each.score !== undefined);
    scored.sort((a, b) => b.score - a.score);
    scored.forEach((each, place) => { each.rank = place + 1; });
    const fits = (each) => each.name.toLowerCase().includes(name)
      && (each.score === undefined ? low === "" && high === "" : within(each.score, low, high));
    const { by, down } = this.sort;
    const value = (each) => (by === "name" ? each.name : each[by]);
    return this.entries.filter(fits).sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
      const order = by === "name" ? left.localeCompare(right, undefined, { numeric: true }) : left - right;
      return down ? -order : order;
    });
  }

  show() {
    const seen = this.visible();
    const focused = document.activeElement?.closest?.("tr")?.entry;
    $("rows").replaceChildren(...seen.map((entry) => this.row(entry)));
    if (focused && this.rows.has(focused)) this.rows.get(focused).querySelector("button")?.focus();
    const scored = seen.filter((each) => each.score !== undefined);
    const mean = scored.reduce((sum, each) => sum + each.score, 0) / scored.length;
    $("shown").textContent = `${seen.length} of ${this.entries.length} images`
      + (scored.length ? `, mean ${two(mean)}` : "");
    $("download").disabled = !this.entries.some((each) => each.score !== undefined);
  }

  row(entry) {
    let row = this.rows.get(entry);
    if (!row) {
      row = this.draw(entry);
      row.entry = entry;
      row.onclick = () => this.choose(entry);
      this.rows.set(entry, row);
    }
    row.cells[0].textContent = entry.score === undefined ? "" : entry.rank;
    row.setAttribute("aria-selected", entry === this.chosen);
    return row;
  }

  draw(entry) {
    const picture = entry.thumb
      ? element("img", { class: "thumb", src: entry.thumb, alt: "", loading: "lazy" })
      : element("span", { class: "thumb" });
    const name = element("button", { type: "button" }, entry.name);
    const cells = [
      element("td", { class: "rank" }),
      element("td", { class: "picture" }, picture),
      element("td", { class: "name" }, name,
        entry.trainedOn ? element("span", { class: "muted" }, ` ${inTraining(entry)}`) : ""),
    ];
    if (entry.score === undefined) {
      cells.push(element("td", { class: "wait", colSpan: 4 },
        element("span", { class: entry.asked ? "waiting" : "" }, entry.asked ? "being scored" : "waits")));
    } else {
      cells.push(
        element("td", { class: "number score" }, two(entry.score)),
        element("td", {}, measure(entry.score, entry.spread, this.facts.scale)),
        element("td", { class: "number spread-cell" }, `± ${two(entry.spread)}`),
        element("td", { class: "gate" }, stack(entry.gate)),
      );
    }
    return element("tr", {}, ...cells);
  }

  choose(entry) {
    if (entry.score === undefined) return;
    this.chosen = entry;
    for (const [each, row] of this.rows) row.setAttribute("aria-selected", each === entry);
    this.onChoose(entry);
  }

  step(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!by || !row) return;
    event.preventDefault();
    const next = by > 0 ? row.nextElementSibling : row.previousElementSibling;
    if (!next) return;
    next.querySelector("button").focus();
    if (this.chosen) this.choose(next.entry);
  }

  download() {
    const experts = this.facts.experts;
    const cell = (value) => {
      const text = String(value);
      const number = /^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(text);
      const safe = /^(\s*[=+\-@＝＋－＠]|[\t\r\n])/.test(text) && !number ? `'${text}` : text; // spreadsheets.py
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const lines = [["rank", "image", "score", "spread", ...experts.map((each) => `gate_${each}`),
      "trained_on", "held_out", "target", "image_id"]];
    const target = this.facts.synthetic ? "synthetic severity" : this.facts.target;
    for (const each of this.visible().filter((one) => one.score !== undefined)) {
      lines.push([each.rank, each.name, each.score.toFixed(4), each.spread.toFixed(4),
        ...experts.map((expert) => each.gate[expert].toFixed(4)),
        each.trainedOn ? "yes" : "no", each.heldOut?.toFixed(4) ?? "", target, each.imageId]);
    }
    const text = lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    element("a", { href: url, download: `${this.facts.run.replaceAll("/", "-")}-scores.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}
