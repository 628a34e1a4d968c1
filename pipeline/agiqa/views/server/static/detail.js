// Beside the table: one image, its map, its reasons, and rated images like it.
import { element, gateBars, interval, measure, number } from "/kit/web/dom.js";
import * as api from "./api.js";
import { inTraining, plain } from "./ranking.js";

const KINDS = { // in the order of what they cost
  maps: "Making the map",
  neighbours: "Looking for neighbours",
  reasons: "Asking for reasons",
};

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
    const { scale, target, experts } = this.facts;
    this.url = URL.createObjectURL(entry.file);
    const section = (title, ...content) => element("section", {}, element("h3", {}, title), ...content);
    const parts = {
      maps: this.picture(entry),
      reasons: section("Reasons"),
      neighbours: section("Rated images that look alike"),
    };
    const targets = Object.entries(entry.targets).map(([name, value]) =>
      element("p", {}, `${plain(name)} `, element("b", {}, number(value))));
    this.place.replaceChildren(
      element("div", { class: "title" },
        element("h2", {}, entry.name),
        element("button", { type: "button", onclick: () => this.away(entry) }, "Close")),
      element("div", {},
        element("p", { class: "big" }, number(entry.score),
          element("small", {}, ` ${interval(entry)}, rank ${entry.rank}`)),
        measure(entry, scale),
        element("p", { class: "muted" },
          `${target}, ${number(scale.low)} to ${number(scale.high)}; the interval holds the MOS of 90 % of images like those that the run learnt from`),
        entry.trainedOn ? element("p", {}, `This image ${inTraining(entry)}: its score is optimistic.`) : "",
        ...targets),
      parts.maps,
      section("Gate", gateBars(experts.map(plain), experts.map((expert) => entry.gate[expert]))),
      parts.reasons,
      parts.neighbours,
    );
    this.explain(entry, parts, this.leave.signal);
    if (matchMedia("(max-width: 62rem)").matches) this.place.scrollIntoView({ block: "start" });
  }

  away(entry) {
    this.clear();
    this.onClose?.(entry);
  }

  picture(entry) {
    const image = element("img", { src: this.url, alt: entry.name });
    image.onerror = () => image.replaceWith(element("p", { class: "muted" }, "This browser does not show this kind of image."));
    return element("section", {}, element("figure", {}, image));
  }

  // Ask for one kind after the other; each has its line until it comes, or says why it does not.
  async explain(entry, parts, signal) {
    const known = this.known.get(entry) ?? {};
    this.known.set(entry, known);
    const lines = {};
    const end = (kind, words) => {
      lines[kind].className = "muted";
      lines[kind].textContent = words;
    };
    for (const kind of Object.keys(KINDS)) {
      lines[kind] = element("p", { class: "waiting" }, KINDS[kind]);
      parts[kind].append(lines[kind]);
      if (this.facts.explanations[kind]) end(kind, this.facts.explanations[kind]);
    }
    for (const kind of Object.keys(KINDS).filter((each) => !this.facts.explanations[each])) {
      try {
        known[kind] ??= await api.explanation(entry, kind, signal);
        if (signal.aborted) return;
        const explanation = known[kind];
        if (explanation.unavailable[kind]) end(kind, explanation.unavailable[kind]);
        else if (kind === "maps") end(kind, this.map(parts.maps, explanation.map));
        else lines[kind].replaceWith(this[kind](explanation[kind]));
      } catch (error) {
        if (error.name === "AbortError") return;
        end(kind, `Not available: ${error.message}`);
      }
    }
  }

  // The map over the image, with buttons for either; what is said of it.
  map(section, { png, method, peak }) {
    const figure = section.querySelector("figure");
    const overlay = element("img", { src: `data:image/png;base64,${png}`, alt: "The image with its quality map" });
    const pictures = [overlay, figure.firstElementChild];
    const choose = (chosen) => {
      figure.replaceChildren(pictures[chosen]);
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", place === chosen));
    };
    const buttons = ["Map", "Image"].map((label, place) =>
      element("button", { type: "button", onclick: () => choose(place) }, label));
    section.prepend(element("div", { class: "choice", role: "group", ariaLabel: "What the picture shows" }, ...buttons));
    choose(0);
    return `${method} The strongest place moves the score by ${peak.toPrecision(2)}.`;
  }

  reasons(reasons) {
    if (!reasons.length) {
      return element("p", { class: "muted" }, "None: in no aspect that relates to people's scores does it differ from well-rated images.");
    }
    return element("ul", { class: "reasons" }, ...reasons.map(({ text, strength }) => {
      const fill = element("span");
      fill.style.width = `${100 * Math.min(1, strength)}%`;
      return element("li", {}, text, element("div", { class: "track", title: `strength ${number(strength)}` }, fill));
    }));
  }

  neighbours(neighbours) {
    return element("ul", { class: "neighbours" }, ...neighbours.map((neighbour) => {
      const words = `rated ${number(neighbour.mos)}`;
      const image = neighbour.picture
        ? element("img", { src: neighbour.picture, alt: `${neighbour.path}, ${words}`, title: neighbour.path })
        : element("span", { class: "none" });
      image.onerror = () => image.replaceWith(element("span", { class: "none", title: `${neighbour.path} is not here` }));
      return element("li", {}, image, element("p", {}, element("b", {}, words),
        element("br"), `alike ${number(neighbour.similarity)}`, neighbour.same_prompt ? ", same prompt" : ""));
    }));
  }
}
