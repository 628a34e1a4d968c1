// Bars for a score on its scale and for the gate's weights of the experts.
import { element, number, share } from "./dom.js";

const series = (place) => `series-${(place % 8) + 1}`;

// A score on the scale of the MOS, with its spread as a whisker.
export function measure(score, spread, scale) {
  const fill = element("span", { class: "fill" });
  fill.style.width = `${100 * share(score, scale)}%`;
  const low = share(score - spread, scale);
  const whisker = element("span", { class: "spread" });
  whisker.style.left = `${100 * low}%`;
  whisker.style.width = `${100 * (share(score + spread, scale) - low)}%`;
  const title = `${number(score)} ± ${number(spread)} on a scale of ${number(scale.low)} to ${number(scale.high)}`;
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
