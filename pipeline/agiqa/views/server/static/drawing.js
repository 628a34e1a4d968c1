// Small parts of the page. Text goes in as text: a file's name is never markup.

export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (key === "class") made.className = value;
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const two = (number) => number.toFixed(2);

// An image that some split of the run has learned from: its score flatters, unless it was held out.
export function inTraining(entry) {
  return `was in training${entry.heldOut === null ? "" : `; held out ${two(entry.heldOut)}`}`;
}

// Whether a figure lies within limits that a reader typed ("" is none). Compared is what the page
// shows, at two digits or at as many as were typed: an image shown as 3.13 is not below 3.13.
export function within(value, low, high, digits = 2) {
  const shown = (typed) => Number(value.toFixed(Math.max(digits, Math.min((typed.split(".")[1] || "").length, 20))));
  return (low === "" || shown(low) >= Number(low)) && (high === "" || shown(high) <= Number(high));
}

const share = (value, scale) =>
  Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low || 1)));

// A bar on the MOS scale, with the spread as a whisker.
export function measure(score, spread, scale) {
  const fill = element("span", { class: "fill" });
  fill.style.width = `${100 * share(score, scale)}%`;
  const low = share(score - spread, scale);
  const whisker = element("span", { class: "spread" });
  whisker.style.left = `${100 * low}%`;
  whisker.style.width = `${100 * (share(score + spread, scale) - low)}%`;
  const words = `${two(score)} ± ${two(spread)} on a scale of ${two(scale.low)} to ${two(scale.high)}`;
  return element("div", { class: "measure", title: words, role: "img", ariaLabel: words }, fill, whisker);
}

const colour = (place) => `expert-${1 + (place % 6)}`;
export const plain = (name) => name.replaceAll("_", " ");

export function stack(gate) {
  const words = Object.entries(gate).map(([name, weight]) => `${plain(name)} ${two(weight)}`).join(", ");
  const made = element("div", { class: "stack", title: words, role: "img", ariaLabel: `Gate: ${words}` });
  Object.values(gate).forEach((weight, place) => {
    const part = element("span", { class: colour(place) });
    part.style.width = `${100 * weight}%`;
    made.append(part);
  });
  return made;
}

export function legend(experts) {
  return experts.map((name, place) =>
    element("span", {}, element("i", { class: colour(place) }), plain(name)));
}

export function gateBars(gate) {
  const made = element("div", { class: "bars" });
  Object.entries(gate).forEach(([name, weight], place) => {
    const fill = element("span", { class: colour(place) });
    fill.style.width = `${100 * weight}%`;
    made.append(element("span", {}, plain(name)),
      element("span", { class: "track" }, fill), element("span", {}, two(weight)));
  });
  return made;
}

// A small picture of a file the server has accepted; null where the browser cannot show its kind.
export async function thumbnail(file, side = 144) {
  try {
    const whole = await createImageBitmap(file);
    const scale = Math.min(1, side / Math.min(whole.width, whole.height));
    const canvas = element("canvas", {
      width: Math.max(1, Math.round(whole.width * scale)),
      height: Math.max(1, Math.round(whole.height * scale)),
    });
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
    return blob && URL.createObjectURL(blob);
  } catch {
    return null;
  }
}
