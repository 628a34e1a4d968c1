// Draws the figures with Plotly: resolves the page's colours, gives points their rows, draws a figure
// when it comes near the window, and again when theme or run change.
import { $, element } from "../../kit/web/dom.js";
import { report } from "./data.js";
import { filterBy, gallery, openImage, showCard } from "./images.js";
import { nearestPoint, paintPoints } from "./points.js";

const CONFIG = {
  responsive: true,
  displaylogo: false,
  displayModeBar: false,
  doubleClick: "reset+autosize",
};
const coarse = window.matchMedia("(pointer: coarse)").matches;
const drawnOnce = new Set(); // figures
let marked = -1; // row of the image in the card
let ordered = null; // rows by score, for the arrow keys

// `--series-1` to what it is now; a probe, since a variable may hold light-dark().
const probe = element("span", { hidden: true });
document.body.append(probe);
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function painted(value) {
  if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(painted);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v)]));
  }
  return value;
}

// A trace of images: the rows of its points. points.js paints them; the legend stays Plotly's.
function pointed(trace) {
  const wanted = trace.meta && trace.meta.generators;
  if (!wanted) return trace;
  const codes = new Set(wanted.map((name) => report.columns.generators.indexOf(name)));
  const rows = [];
  report.columns.generator.forEach((code, row) => {
    if (codes.has(code) && report.score(row) !== null) rows.push(row);
  });
  return { ...trace, x: [null], y: [null], meta: { rows } };
}

function laidOut(layout, narrow) {
  const axis = {
    gridcolor: colour("--rule"),
    linecolor: colour("--muted"),
    zeroline: false,
    automargin: true,
    tickfont: { size: narrow ? 11 : 12 },
    fixedrange: coarse,
  };
  const cut = (text) => (narrow && text.length > 20 && !text.includes("<") ? `${text.slice(0, 18).replace(/&[^;]*$/, "")}…` : text);
  const side = (own = {}) => ({
    ...axis,
    ...own,
    ...(own.ticktext ? { ticktext: own.ticktext.map(cut) } : {}),
    title: { standoff: 10, font: { size: 13 }, ...(own.title || {}) },
  });
  return {
    ...layout,
    height: undefined,
    autosize: true,
    xaxis: side(layout.xaxis),
    yaxis: side(layout.yaxis),
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
    hoverlabel: {
      bgcolor: colour("--raised"),
      bordercolor: colour("--rule"),
      font: { color: colour("--ink"), size: 13 },
      align: "left",
    },
    margin: { l: 12, r: 12, t: 12, b: 12 },
    dragmode: coarse ? false : "zoom",
    hovermode: layout.hovermode || "closest",
  };
}

function draw(figure) {
  const name = figure.dataset.figure;
  const spec = report.beside[name] || report.figures[report.current][name];
  figure.hidden = !spec;
  if (!spec) return;
  const holder = figure.querySelector(".plot");
  if (holder.getAttribute("role") === "img") holder.setAttribute("aria-label", spec.spoken);
  figure.querySelector(".title").textContent = spec.title;
  figure.querySelector("figcaption").textContent = spec.caption;
  const data = spec.data.map(pointed).map(painted);
  holder.style.height = `${spec.layout.height}px`;
  Plotly.react(holder, data, laidOut(painted(spec.layout), holder.clientWidth < 460), CONFIG);
  if (!drawnOnce.has(figure)) {
    drawnOnce.add(figure);
    if (name === "scatter") explorable(holder);
    else if (spec.filters) filtering(holder, spec.filters);
  } else if (name === "scatter") {
    ordered = null;
    if (marked >= 0) showImage(marked);
  }
}

// The image in the card beside the main plot, ringed in the plot.
export function showImage(row) {
  marked = row;
  showCard(row);
  repaint();
}

function repaint() {
  const holder = document.querySelector('[data-figure="scatter"] .plot');
  if (!holder._fullLayout) return;
  paintPoints(holder, marked, colour("--ink"));
}

function explorable(holder) {
  repaint();
  holder.on("plotly_afterplot", repaint);
  let asked = -1;
  holder.addEventListener("pointermove", (event) => {
    const row = nearestPoint(holder, event);
    holder.classList.toggle("near", row >= 0);
    if (row < 0 || row === marked) return;
    asked = row;
    requestAnimationFrame(() => {
      if (asked === row && marked !== row) showImage(row);
    });
  });
  let pressed = null; // Plotly takes clicks for its zoom: a press that stays in place is ours
  holder.addEventListener("pointerdown", (event) => {
    pressed = { x: event.clientX, y: event.clientY, row: nearestPoint(holder, event) };
  });
  window.addEventListener("pointerup", (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4;
    const row = still ? pressed.row : -1;
    pressed = null;
    if (row < 0) return;
    showImage(row);
    if (!coarse) setTimeout(() => openImage(row)); // once Plotly has let go of the pointer
  });
  holder.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 20, PageDown: -20 };
    if (event.key === "Enter" && marked >= 0) openImage(marked);
    else if (event.key in steps) showImage(stepped(steps[event.key]));
    else return;
    event.preventDefault();
  });
}

function stepped(step) {
  if (!ordered) {
    ordered = report.rows
      .filter((row) => report.score(row) !== null)
      .sort((a, b) => report.score(a) - report.score(b));
  }
  const at = ordered.indexOf(marked) + step;
  return ordered[Math.min(ordered.length - 1, Math.max(0, at))];
}

function filtering(holder, filters) {
  holder.classList.add("clickable");
  holder.on("plotly_click", (event) => {
    const asked = event.points[0].customdata;
    if (asked !== undefined) filterBy(filters, asked);
  });
}

export function startPlots() {
  const figures = [...document.querySelectorAll("figure.drawn")];
  draw(figures.find((figure) => figure.dataset.figure === "scatter"));
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          near.unobserve(entry.target);
          draw(entry.target);
        }
      }
    },
    { rootMargin: "400px" },
  );
  figures.filter((figure) => !drawnOnce.has(figure)).forEach((figure) => near.observe(figure));
  // On paper, or in a PDF, every figure stands, in light colours and as wide as a page.
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    root.classList.add("paper");
    figures.forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    root.classList.remove("paper");
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    figures.forEach(draw);
  });
}

export const redraw = () => [...drawnOnce].forEach(draw);

// The main plot now, the pictures once the parser has come to them.

const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
const nameTheme = () => {
  $("theme").textContent = isDark() ? "Light" : "Dark";
};
const themeChanged = () => {
  nameTheme();
  redraw();
};
$("theme").hidden = false;
$("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  themeChanged();
});
dark.addEventListener("change", themeChanged);
$("run")?.addEventListener("change", () => {
  report.current = Number($("run").value);
  redraw();
  gallery.choose();
});
startPlots();
nameTheme();
