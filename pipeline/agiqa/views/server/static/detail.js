// Beside the table: one image, its map, its reasons, and rated images like it.

import * as asking from "./asking.js";
import { element, gateBars, inTraining, measure, plain, two } from "./drawing.js";

const KINDS = ["maps", "neighbours", "reasons"]; // in the order of what they cost

export class Detail {
  constructor(place, facts) {
    this.place = place;
    this.facts = facts;
    this.known = new WeakMap(); // explanations of entries, by kind
  }

  clear() {
    this.leave?.abort();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.place.replaceChildren(element("p", { class: "muted" }, "Choose an image in the table to see why it scored so."));
  }

  show(entry) {
    this.clear();
    this.leave = new AbortController();
    const { signal } = this.leave;
    const picture = entry.number === undefined
      ? (this.url = URL.createObjectURL(entry.file))
      : asking.folderPicture(entry.number, "large");
    const parts = {
      maps: this.picture(entry, picture),
      reasons: element("section", {}, element("h3", {}, "Reasons")),
      neighbours: element("section", {}, element("h3", {}, "Rated images that look alike")),
    };
    const targets = Object.entries(entry.targets);
    this.place.replaceChildren(
      element("div", { class: "title" },
        element("h2", {}, entry.name),
        element("button", { type: "button", onclick: () => this.away(entry) }, "Close")),
      element("div", {},
        element("p", { class: "big" }, two(entry.score),
          element("small", {}, ` ± ${two(entry.spread)}, rank ${entry.rank}`)),
        measure(entry.score, entry.spread, this.facts.scale),
        element("p", { class: "muted" },
          `${this.facts.target}, ${two(this.facts.scale.low)} to ${two(this.facts.scale.high)}; the spread is over the run's splits`),
        entry.trainedOn
          ? element("p", {}, `This image ${inTraining(entry)}: its score is optimistic.`) : "",
        ...targets.map(([name, value]) => element("p", {}, `${plain(name)} `, element("b", {}, two(value))))),
      parts.maps,
      element("section", {}, element("h3", {}, "Gate"), gateBars(entry.gate)),
      parts.reasons,
      parts.neighbours,
    );
    this.explain(entry, parts, signal);
    if (matchMedia("(max-width: 62rem)").matches) this.place.scrollIntoView({ block: "start" });
  }

  away(entry) {
    this.clear();
    this.onClose?.(entry);
  }

  picture(entry, source) {
    const image = element("img", { src: source, alt: entry.name });
    image.onerror = () => image.replaceWith(element("p", { class: "muted" }, "This browser does not show this kind of image."));
    return element("section", {}, element("figure", {}, image));
  }

  async explain(entry, parts, signal) {
    const known = this.known.get(entry) ?? {};
    this.known.set(entry, known);
    for (const kind of KINDS) {
      const place = element("p", { class: "waiting" }, { maps: "Making the map", neighbours: "Looking for neighbours", reasons: "Asking for reasons" }[kind]);
      parts[kind].append(place);
      const why = this.facts.explanations[kind];
      if (why) { place.className = "muted"; place.textContent = why; }
      else parts[kind].waiting = place;
    }
    for (const kind of KINDS) {
      const place = parts[kind].waiting;
      if (!place) continue;
      try {
        known[kind] ??= await asking.explanation(entry, [kind], signal);
        if (signal.aborted) return;
        const without = known[kind].unavailable[kind];
        if (without) { place.className = "muted"; place.textContent = without; continue; }
        if (kind === "maps") this.map(parts.maps, known[kind].map, place);
        else place.replaceWith(this[kind](known[kind][kind]));
      } catch (error) {
        if (error.name === "AbortError") return;
        place.className = "muted";
        place.textContent = `Not available: ${error.message}`;
      }
    }
  }

  map(section, found, place) {
    const figure = section.querySelector("figure");
    const original = figure.firstElementChild;
    const overlay = element("img", { src: `data:image/png;base64,${found.png}`, alt: "The image with its quality map" });
    const buttons = ["Map", "Image"].map((label) => element("button", { type: "button" }, label));
    const choose = (place) => {
      figure.replaceChildren(place === 0 ? overlay : original);
      buttons.forEach((each, at) => each.setAttribute("aria-pressed", at === place));
    };
    buttons.forEach((each, at) => { each.onclick = () => choose(at); });
    section.prepend(element("div", { class: "choice", role: "group", ariaLabel: "What the picture shows" }, ...buttons));
    choose(0);
    place.className = "muted";
    place.textContent = `${found.method} The strongest place moves the score by ${found.peak.toPrecision(2)}.`;
  }

  reasons(found) {
    if (!found.length) {
      return element("p", { class: "muted" }, "None: in no aspect that relates to people's scores does it differ from well-rated images.");
    }
    return element("ul", { class: "reasons" }, ...found.map((each) => {
      const fill = element("span");
      fill.style.width = `${100 * Math.min(1, each.strength)}%`;
      return element("li", {}, each.text,
        element("div", { class: "track", title: `strength ${two(each.strength)}` }, fill));
    }));
  }

  neighbours(found) {
    return element("ul", { class: "neighbours" }, ...found.map((each) => {
      const words = `rated ${two(each.mos)}`;
      const image = each.picture
        ? element("img", { src: each.picture, alt: `${each.path}, ${words}`, title: each.path })
        : element("span", { class: "none" });
      image.onerror = () => image.replaceWith(element("span", { class: "none", title: `${each.path} is not here` }));
      return element("li", {}, image, element("p", {}, element("b", {}, words),
        element("br"), `alike ${two(each.similarity)}`, each.same_prompt ? ", same prompt" : ""));
    }));
  }
}
