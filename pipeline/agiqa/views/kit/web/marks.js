// Bars for a score on its scale and for the gate's weights of the experts.
import { element, number, share } from "./dom.js";

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
