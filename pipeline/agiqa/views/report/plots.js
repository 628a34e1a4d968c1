// Draws the figures with Plotly: resolves the page's colours, gives points their rows, draws a figure
// when it comes near the window, and again when theme or run change. The images' points stand on a
// canvas of our own.
import { $, element } from "../kit/web/dom.js";
import { filterBy, gallery, openImage, report, showCard } from "./images.js";

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

// A trace of images: the rows of its points. `paintPoints` paints them; the legend stays Plotly's.
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

// The images' points, on a canvas beneath Plotly's axes: thousands of SVG markers take seconds to
// draw, and Plotly's WebGL would need a policy that allows eval. Legend and zoom stay Plotly's; this
// paints whatever they leave, finds the point nearest to the pointer, and rings the one in the card.

const REACH = 14; // pixels from the pointer
// Around 0, about 1 in size, by the names of Plotly's symbols.
const SHAPES = {
  circle: "M0,-1A1,1,0,1,1,0,1A1,1,0,1,1,0,-1Z",
  diamond: "M0,-1.3L1.3,0L0,1.3L-1.3,0Z",
  square: "M-.9,-.9H.9V.9H-.9Z",
  "triangle-up": "M0,-1.15L1.1,.8H-1.1Z",
  "triangle-down": "M0,1.15L1.1,-.8H-1.1Z",
  cross: "M-.4,-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
  x: "M-1.1,-.6L-.6,-1.1L0,-.5L.6,-1.1L1.1,-.6L.5,0L1.1,.6L.6,1.1L0,.5L-.6,1.1L-1.1,.6L-.5,0Z",
  pentagon: "M0,-1.1L1.05,-.34L.65,.89H-.65L-1.05,-.34Z",
  "star-diamond": "M0,-1.5L.45,-.45L1.5,0L.45,.45L0,1.5L-.45,.45L-1.5,0L-.45,-.45Z",
  hourglass: "M-1,-1.1H1L-1,1.1H1Z",
};
let visible = []; // rows of the points to be seen, and where they are in the plot's area
let across = new Float32Array(0);
let down = new Float32Array(0);

// One marker as a picture, to be stamped.
function stamp(marker, density) {
  const half = Math.ceil(marker.size * density);
  const canvas = element("canvas", { width: 2 * half, height: 2 * half });
  const pen = canvas.getContext("2d");
  pen.translate(half, half);
  pen.scale((marker.size / 2) * density, (marker.size / 2) * density);
  pen.fillStyle = marker.color;
  pen.globalAlpha = marker.opacity;
  pen.fill(new Path2D(SHAPES[marker.symbol]));
  return canvas;
}

function paintPoints(holder, marked, ink) {
  const { xaxis, yaxis } = holder._fullLayout;
  const density = window.devicePixelRatio || 1;
  const canvas = holder.querySelector("canvas.points") || element("canvas", { className: "points", ariaHidden: "true" });
  holder.append(canvas);
  canvas.width = xaxis._length * density;
  canvas.height = yaxis._length * density;
  canvas.style.cssText = `left:${xaxis._offset}px;top:${yaxis._offset}px;width:${xaxis._length}px;height:${yaxis._length}px`;
  const pen = canvas.getContext("2d");
  const seen = holder._fullData.filter((trace) => trace.visible === true && trace.meta && trace.meta.rows);
  visible = seen.flatMap((trace) => trace.meta.rows);
  across = Float32Array.from(visible, (row) => xaxis.c2p(report.score(row)));
  down = Float32Array.from(visible, (row) => yaxis.c2p(report.mos(row)));
  let at = 0;
  for (const trace of seen) {
    const picture = stamp(trace.marker, density);
    for (const end = at + trace.meta.rows.length; at < end; at += 1) {
      pen.drawImage(picture, across[at] * density - picture.width / 2, down[at] * density - picture.height / 2);
    }
  }
  const place = visible.indexOf(marked);
  if (place >= 0) {
    pen.lineWidth = 2.5 * density;
    pen.strokeStyle = ink;
    pen.beginPath();
    pen.arc(across[place] * density, down[place] * density, 8 * density, 0, 2 * Math.PI);
    pen.stroke();
  }
  canvas.dataset.count = visible.length;
}

// The row of the point nearest to the pointer; -1 if none is near.
function nearestPoint(holder, event) {
  const { xaxis, yaxis } = holder._fullLayout;
  const box = holder.getBoundingClientRect();
  const x = event.clientX - box.left - xaxis._offset;
  const y = event.clientY - box.top - yaxis._offset;
  if (x < 0 || y < 0 || x > xaxis._length || y > yaxis._length) return -1;
  let best = REACH * REACH;
  let row = -1;
  for (let at = 0; at < visible.length; at += 1) {
    const far = (across[at] - x) ** 2 + (down[at] - y) ** 2;
    if (far < best) {
      best = far;
      row = visible[at];
    }
  }
  return row;
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
