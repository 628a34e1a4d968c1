// The table of all images: ranked, sorted, filtered, downloaded.
import { $, csv, element, interval, legend, measure, number, save, stack, within } from "/kit/web/dom.js";
import { Gallery } from "/kit/web/gallery.js";

export const plain = (name) => name.replaceAll("_", " ");

// An image that some split of the run has learned from: its score flatters, unless it was held out.
export function inTraining(entry) {
  return `was in training${entry.heldOut === null ? "" : `; held out ${number(entry.heldOut)}`}`;
}

const isScored = (entry) => entry.score !== undefined;

export class Ranking extends Gallery {
  constructor(facts, onChoose) {
    super({ list: $("rows"), facts, onChoose, entries: [], rows: new Map(), by: "score", down: true, chosen: null });
    this.experts = facts.experts.map(plain);
    $("scale-low").textContent = number(facts.scale.low);
    $("scale-name").textContent = facts.target;
    $("scale-high").textContent = number(facts.scale.high);
    $("gate-legend").replaceChildren("Gate: ", ...legend(this.experts));
    for (const head of document.querySelectorAll("th[data-sort]")) {
      head.querySelector("button").onclick = () => this.sortBy(head.dataset.sort);
    }
    for (const id of ["filter-name", "filter-low", "filter-high"]) $(id).oninput = () => this.choose();
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
    this.entries = this.entries.filter((other) => other !== entry);
    this.changed(entry);
  }

  clear() {
    this.entries = [];
    this.rows.clear();
    this.chosen = null;
    this.choose();
  }

  sortBy(key) {
    this.down = this.by === key ? !this.down : key !== "name";
    this.by = key;
    for (const head of document.querySelectorAll("th[data-sort]")) {
      if (head.dataset.sort !== key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
    }
    this.choose();
  }

  // Many answers may come in one frame; the table is drawn once.
  later() {
    if (this.soon) return;
    this.soon = true;
    requestAnimationFrame(() => { this.soon = false; this.choose(); });
  }

  items() {
    const scored = this.entries.filter(isScored).sort((a, b) => b.score - a.score);
    scored.forEach((entry, place) => { entry.rank = place + 1; });
    return this.entries;
  }

  passes() {
    const name = $("filter-name").value.trim().toLowerCase();
    const [low, high] = [$("filter-low").value, $("filter-high").value];
    return (entry) => entry.name.toLowerCase().includes(name)
      && (isScored(entry) ? within(entry.score, low, high) : low === "" && high === "");
  }

  order() {
    const { by, down } = this;
    return (a, b) => {
      const [left, right] = [a[by], b[by]];
      if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
      const order = by === "name" ? left.localeCompare(right, undefined, { numeric: true }) : left - right;
      return down ? -order : order;
    };
  }

  choose() {
    const focused = document.activeElement?.closest?.("tr")?.entry;
    super.choose();
    this.rows.get(focused)?.querySelector("button")?.focus();
  }

  drawn() {
    const scores = this.shown.filter(isScored).map((entry) => entry.score);
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
    $("shown").textContent = `${this.shown.length} of ${this.entries.length} images`
      + (scores.length ? `, mean ${number(mean)}` : "");
    $("download").disabled = !this.entries.some(isScored);
  }

  tile(entry) {
    let row = this.rows.get(entry);
    if (!row) {
      row = this.makeRow(entry);
      row.entry = entry;
      row.onclick = () => this.open(entry);
      this.rows.set(entry, row);
    }
    row.cells[0].textContent = isScored(entry) ? entry.rank : "";
    row.setAttribute("aria-selected", entry === this.chosen);
    return row;
  }

  makeRow(entry) {
    const { scale } = this.facts;
    const picture = entry.thumb
      ? element("img", { class: "thumb", src: entry.thumb, alt: "", loading: "lazy" })
      : element("span", { class: "thumb" });
    const trained = entry.trainedOn ? element("span", { class: "muted" }, ` ${inTraining(entry)}`) : "";
    const waiting = element("span", { class: entry.asked ? "waiting" : "" }, entry.asked ? "being scored" : "waits");
    const figures = isScored(entry)
      ? [
        element("td", { class: "number score" }, number(entry.score)),
        element("td", {}, measure(entry, scale)),
        element("td", { class: "number interval-cell" }, interval(entry)),
        element("td", { class: "gate-cell" }, stack(this.experts, this.weights(entry))),
      ]
      : [element("td", { class: "wait", colSpan: 4 }, waiting)];
    return element("tr", {},
      element("td", { class: "rank" }),
      element("td", { class: "picture" }, picture),
      element("td", { class: "name" }, element("button", { type: "button" }, entry.name), trained),
      ...figures);
  }

  weights(entry) {
    return this.facts.experts.map((expert) => entry.gate[expert]);
  }

  open(entry) {
    if (!isScored(entry)) return;
    this.chosen = entry;
    for (const [other, row] of this.rows) row.setAttribute("aria-selected", other === entry);
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
    if (this.chosen) this.open(next.entry);
  }

  download() {
    const { experts, synthetic, target, run } = this.facts;
    const head = ["rank", "image", "score", "low", "high", "disagreement", ...experts.map((expert) => `gate_${expert}`),
      "trained_on", "held_out", "target", "image_id"];
    const lines = this.shown.filter(isScored).map((entry) => [
      entry.rank, entry.name, ...[entry.score, entry.low, entry.high, entry.disagreement, ...this.weights(entry)].map((figure) => figure?.toFixed(4) ?? ""),
      entry.trainedOn ? "yes" : "no", entry.heldOut?.toFixed(4) ?? "",
      synthetic ? "synthetic severity" : target, entry.imageId]);
    save(`${run.replaceAll("/", "-")}-scores.csv`, csv([head, ...lines]));
  }
}
