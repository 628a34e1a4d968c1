// The page of a scored folder: cards in the order and by the filters that the reader chooses. Rows
// as `page.py` writes them, best first.
import { $, csv, element, gateBars, grouped, interval, legend, measure, number, save, share, stack, within } from "../kit/web/dom.js";
import { Gallery, Viewer } from "../kit/web/gallery.js";

const { scale, experts, target, rows } = JSON.parse($("content").textContent);
const images = rows.map(([name, score, low, high, disagreement, gate, picture, trainedOn, heldOut], row) =>
  ({ name, score, low, high, disagreement, gate, picture, trainedOn, heldOut, row }));
const BINS = 40;
const bin = (score) => Math.min(Math.floor(share(score, scale) * BINS), BINS - 1);
const edge = (place) => scale.low + ((scale.high - scale.low) * place) / BINS;
let chosenBin = -1;

const folderOf = (name) => name.slice(0, Math.max(name.lastIndexOf("/"), 0)) || ".";
const folders = [...new Set(images.map((image) => folderOf(image.name)))].sort();
if (folders.length > 1) {
  $("folders").hidden = false;
  $("folder").add(new Option(`all ${folders.length}`, ""));
  for (const folder of folders) $("folder").add(new Option(folder));
}

const orders = {
  "best first": (a, b) => a.row - b.row,
  "worst first": (a, b) => b.row - a.row,
  "models agree least": (a, b) => b.disagreement - a.disagreement,
  "name": (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  ...Object.fromEntries(experts.map((expert, k) => [`weight of ${expert}`, (a, b) => b.gate[k] - a.gate[k]])),
};
for (const order of Object.keys(orders)) $("sort").add(new Option(order));
$("key").append(...legend(experts));

// The histogram: outliers stand in the first and the last bin.
function histogramBar(count, place, counts) {
  const title = `${number(edge(place))} to ${number(edge(place + 1))}: ${count} image${count === 1 ? "" : "s"}`;
  const bar = element("i");
  bar.style.height = `${(100 * count) / Math.max(...counts, 1)}%`;
  // No tab stop: the fields above do the same by keyboard, in two steps.
  const button = element("button", { type: "button", title, ariaLabel: title, disabled: count === 0, tabIndex: -1 }, bar);
  button.addEventListener("click", () => {
    const again = place === chosenBin;
    chosenBin = again ? -1 : place;
    $("from").value = again || place === 0 ? "" : edge(place).toFixed(2);
    $("to").value = again || place === BINS - 1 ? "" : edge(place + 1).toFixed(2);
    gallery.choose();
  });
  return button;
}
const counts = new Array(BINS).fill(0);
for (const image of images) counts[bin(image.score)] += 1;
const bars = counts.map(histogramBar);
$("histogram").append(...bars);

function markBars() {
  const least = Number($("from").value || -Infinity);
  const most = Number($("to").value || Infinity);
  bars.forEach((button, place) => {
    button.ariaPressed = String(place === chosenBin);
    button.classList.toggle("out", chosenBin < 0 ? edge(place + 1) <= least || edge(place) >= most : place !== chosenBin);
  });
}

const source = (image) => `data:image/webp;base64,${image.picture}`;

// A published scorer is one model without experts, and knows no errors.
const around = (image) => (experts.length ? `${interval(image)} · ` : "");

function card(image, place) {
  const button = element("button", { type: "button", class: "card" },
    image.picture
      ? element("img", { alt: "", decoding: "async", src: source(image) })
      : element("span", { class: "absent" }, "no picture"),
    element("span", { class: "figure" },
      element("b", {}, number(image.score)),
      element("small", {}, `${around(image)}#${image.row + 1}`)),
    measure(image, scale),
    stack(experts, image.gate),
    element("span", { class: "file", title: image.name }, image.name.slice(image.name.lastIndexOf("/") + 1)));
  button.addEventListener("click", () => viewer.open(gallery.shown, place));
  return element("li", {}, button);
}

const gallery = new Gallery({
  list: $("cards"),
  part: 120,
  items: () => images,
  passes() {
    const words = $("name").value.trim().toLowerCase();
    const [from, to, folder] = [$("from").value, $("to").value, $("folder").value];
    return ({ name, score }) =>
      (chosenBin < 0 ? within(score, from, to) : bin(score) === chosenBin) && // a bar: its own images
      name.toLowerCase().includes(words) &&
      (!folder || folderOf(name) === folder);
  },
  order: () => orders[$("sort").value],
  tile: card,
  drawn() {
    const all = this.shown.length === images.length;
    $("count").textContent = `${all ? "All" : `${grouped(this.shown.length)} of`} ${grouped(images.length)} images`;
    $("more").hidden = this.end >= this.shown.length;
    markBars();
  },
});

const buttons = { back: $("previous"), forth: $("next"), close: $("close") };
const viewer = new Viewer($("details"), buttons, (image, place, shown) => {
  while (gallery.end <= place) gallery.more();
  $("details-picture").src = image.picture ? source(image) : "data:,";
  $("details-picture").hidden = !image.picture;
  $("details-name").textContent = image.name;
  const facts = [["Score", number(image.score, 3)],
    ...(experts.length ? [["90 % interval", interval(image)], ["Disagreement of the models", number(image.disagreement, 3)]] : []),
    ...(image.trainedOn ? [["In the run's training", "yes: the score is optimistic"]] : []),
    ...(image.heldOut === null ? [] : [["Held out", number(image.heldOut, 3)]]),
    ["Place", `${grouped(image.row + 1)} of ${grouped(images.length)}`]];
  $("details-figures").replaceChildren(
    ...facts.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
  $("details-gate").replaceChildren(gateBars(experts, image.gate, 3));
});
$("details").addEventListener("close", () => $("cards").children[viewer.place]?.firstChild.focus());

for (const id of ["sort", "folder"]) $(id).addEventListener("change", () => gallery.choose());
const unchoose = () => {
  chosenBin = -1;
  gallery.choose();
};
for (const id of ["name", "from", "to"]) $(id).addEventListener("input", unchoose);
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("reset").addEventListener("click", () => setTimeout(unchoose));
$("csv").addEventListener("click", () => {
  const head = ["image", "score", "low", "high", "disagreement", ...experts.map((expert) => `gate_${expert}`), "trained_on", "held_out", "target"];
  save("scores.csv", csv([head, ...gallery.shown.map((image) => [image.name, image.score, image.low ?? "", image.high ?? "", image.disagreement, ...image.gate,
    image.trainedOn ? "yes" : "no", image.heldOut ?? "", target])]));
});
const themes = ["auto", "light", "dark"];
$("theme").addEventListener("click", () => {
  themes.push(themes.shift());
  document.documentElement.style.colorScheme = themes[0] === "auto" ? "" : themes[0];
  $("theme").textContent = `Theme: ${themes[0]}`;
});
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting) && gallery.end < gallery.shown.length) gallery.more();
}, { rootMargin: "1200px" }).observe($("more"));
gallery.choose();
