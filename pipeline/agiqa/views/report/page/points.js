// The images' points, on a canvas beneath Plotly's axes: thousands of SVG markers take seconds to
// draw, and Plotly's WebGL would need a policy that allows eval. Legend and zoom stay Plotly's; this
// paints whatever they leave, finds the point nearest to the pointer, and rings the one in the card.
import { element } from "../../kit/web/dom.js";
import { report } from "./data.js";

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

export function paintPoints(holder, marked, ink) {
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
export function nearestPoint(holder, event) {
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

