// The page's data, for the scripts that follow: columns of images, one row an image, and pictures
// out of inert blocks that are decoded on first use.
import { $ } from "../../kit/web/dom.js";

const data = JSON.parse($("data").textContent);
const { columns } = data;
const BLOCK = 128; // pictures in a block, as page.py writes them
const blocks = new Map();

function block(id) {
  if (!blocks.has(id)) {
    if (!$(id)) return null; // the parser has not come to it yet
    blocks.set(id, JSON.parse($(id).textContent));
  }
  return blocks.get(id);
}

const address = (base64) => (base64 ? `data:image/webp;base64,${base64}` : "");

function picture(kind, row) {
  const pictures = block(`${kind}-${Math.floor(row / BLOCK)}`);
  return address(pictures && pictures[row % BLOCK]);
}

export const report = {
  ...data,
  current: 0, // which of several runs is shown
  rows: columns.path.map((_, row) => row),
  run: () => columns.runs[report.current],
  score: (row) => report.run().score[row],
  mos: (row) => columns.mos[row],
  error: (row) => report.score(row) - columns.mos[row],
  prompt: (row) => columns.prompts[columns.prompt[row]],
  group: (row) => columns.groups[columns.group[row]],
  generator: (row) => columns.generators[columns.generator[row]],
  path: (row) => columns.path[row],
  small: (row) => picture("picture", row),
  map: (row) => picture("map", row),
  large: (row) => address((block("picture-large") || {})[row]) || report.small(row),
};
