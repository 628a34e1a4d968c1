// The page: takes images, sends them a few at a time, and shows what comes back as it comes.

import { $, element, number } from "/kit/web/dom.js";
import * as api from "./api.js";
import { Detail } from "./detail.js";
import { dropped, imagesOf, thumbnail } from "./files.js";
import { Ranking } from "./ranking.js";

const AT_ONCE = 6; // requests, as many as a browser opens to one server
const OVERHEAD = 4096; // bytes of a request beside each image
const MOST = 8; // images in a request, where answers come fast
const FAST = 1500, SLOW = 5000; // milliseconds an answer takes

const MIB = 1024 * 1024;

let facts, ranking, detail;
let waiting = []; // entries not yet sent
let under = 0; // requests under way
let group = 1; // images in a request: more while answers come fast, so that results come in steadily
let given = 0, answered = 0; // since the last pause
let stopper = new AbortController();

function say(words) {
  $("state").textContent = words;
  $("state").hidden = !words;
}

function refuse(name, reason) {
  $("refused").hidden = false;
  $("refused-list").append(element("li", {}, element("b", {}, name), `: ${reason.replace(/\.$/, "")}.`));
}

function take(files) {
  const prompt = $("prompt").value.trim();
  if (facts.asks_image_prompt && !prompt) {
    say("This run needs the text that the images were generated from: write it first, then add the images.");
    $("prompt").focus();
    return;
  }
  say("");
  for (const file of files) {
    const entry = { name: file.webkitRelativePath || file.name, file, prompt, targets: {} };
    if (file.size + OVERHEAD > facts.limits.request_bytes) {
      const limit = (facts.limits.request_bytes / MIB).toFixed(0);
      refuse(entry.name, `is ${(file.size / MIB).toFixed(0)} MiB, more than the limit of ${limit} MiB; it was not sent.`);
      continue;
    }
    ranking.add(entry);
    waiting.push(entry);
    given += 1;
  }
  $("work").hidden = !ranking.entries.length;
  go();
}

function go() {
  while (under < AT_ONCE && waiting.length) send(next());
  progress();
}

// The next images for one request: few enough for its limits, with one prompt.
function next() {
  const part = [waiting.shift()];
  const [first] = part;
  let bytes = first.file.size + OVERHEAD;
  while (waiting.length && part.length < Math.min(group, facts.limits.files)) {
    const [entry] = waiting;
    bytes += entry.file.size + OVERHEAD;
    if (bytes > facts.limits.request_bytes || entry.prompt !== first.prompt) break;
    part.push(waiting.shift());
  }
  return part;
}

async function send(part) {
  under += 1;
  for (const entry of part) {
    entry.asked = true;
    ranking.changed(entry);
  }
  const started = performance.now();
  try {
    const answer = await api.scores(part, stopper.signal);
    for (const score of answer.scores) {
      const entry = part[score.index];
      Object.assign(entry, { score: score.score, low: score.low, high: score.high, disagreement: score.disagreement, gate: score.gate, targets: score.targets, trainedOn: score.trained_on, heldOut: score.held_out, imageId: score.image_id });
      ranking.changed(entry);
    }
    for (const { index, reason } of answer.refused) {
      ranking.remove(part[index]);
      refuse(part[index].name, reason);
    }
    const seconds = performance.now() - started;
    if (seconds < FAST) group = Math.min(MOST, group + 1);
    else if (seconds > SLOW) group = Math.max(1, group - 1);
    for (const entry of part) {
      if (entry.score === undefined) continue;
      entry.thumb = await thumbnail(entry.file);
      ranking.changed(entry);
    }
  } catch (error) {
    for (const entry of part) {
      ranking.remove(entry);
      if (error.name !== "AbortError") refuse(entry.name, error.message);
    }
  }
  under -= 1;
  answered += part.length;
  go();
  if (!under && !waiting.length) done();
}

function progress() {
  const left = waiting.length + under; // of either kind
  $("progress").hidden = !left;
  $("bar").max = given || 1;
  $("bar").value = answered;
  $("progress-words").textContent = `${answered} of ${given} answered`;
}

function done() {
  given = answered = 0;
  $("work").hidden = !ranking.entries.length;
  if (ranking.chosen || innerWidth <= 62 * 16) return;
  ranking.choose();
  const best = ranking.entries.find((entry) => entry.rank === 1);
  if (best) ranking.open(best);
}

function stop() {
  for (const entry of waiting) ranking.remove(entry);
  waiting = [];
  stopper.abort();
  stopper = new AbortController();
}

function clear() {
  stop();
  for (const entry of ranking.entries) if (entry.thumb) URL.revokeObjectURL(entry.thumb);
  ranking.clear();
  detail.clear();
  $("refused-list").replaceChildren();
  $("refused").hidden = true;
  $("work").hidden = true;
}

function listen() {
  const drop = $("drop");
  $("choose").onclick = () => $("files").click();
  $("choose-folder").onclick = () => $("folder").click();
  $("files").onchange = (event) => { take([...event.target.files]); event.target.value = ""; };
  $("folder").onchange = (event) => {
    const images = imagesOf(event.target.files);
    if (images.length) take(images);
    else say("There is no image in that folder.");
    event.target.value = "";
  };
  let depth = 0;
  const over = (on) => drop.classList.toggle("over", on);
  addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; over(true); });
  addEventListener("dragleave", () => { depth -= 1; over(depth > 0); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    over(false);
    const files = await dropped(event.dataTransfer);
    if (files.length) take(files);
    else say("There is no image among what was dropped.");
  });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) take([...event.clipboardData.files]); });
  $("stop").onclick = stop;
  $("clear").onclick = clear;
}

function describe() {
  document.title = `agiqa · ${facts.run}`;
  $("run-name").textContent = facts.run;
  const tested = facts.tested;
  const figures = tested
    ? `test SRCC ${tested.srcc.median === null ? "not defined" : number(tested.srcc.median)}` + (tested.srcc.low === null ? "" : ` (${Math.round(100 * (tested.level ?? 0.95))} %: ${number(tested.srcc.low)} to ${number(tested.srcc.high)})`) + ` over ${tested.splits} ${tested.splits === 1 ? "split" : "splits"}`
    : facts.published ? "its test figures stand in its card, README.md in its folder" : "not evaluated yet";
  $("run-line").textContent = `${facts.target} as learned from ${facts.dataset}, ${facts.images.toLocaleString("en")} images, protocol ${facts.protocol}; ${figures}${tested?.gate ? `; ${tested.gate}` : ""}`;
  $("synthetic").hidden = !facts.synthetic;
  $("limits").textContent = `Up to ${(facts.limits.request_bytes / MIB).toFixed(0)} MiB and ${Math.round(facts.limits.pixels / 1e6)} megapixels an image. They stay on the machine that serves this page.`;
  if (facts.asks_image_prompt) $("prompt-need").textContent = "(this run needs it)";
}

async function awaitModels() {
  let told = false;
  while (!(await api.ready().catch(() => false))) {
    if (!waiting.length && !under) say("The models are loading; images given now wait for them.");
    told = true;
    await new Promise((done) => setTimeout(done, 1000));
  }
  if (told) say("");
}

async function start() {
  try {
    facts = await api.run();
  } catch (error) {
    say(`Cannot start: ${error.message}`);
    return;
  }
  detail = new Detail($("detail"), facts);
  ranking = new Ranking(facts, (entry) => detail.show(entry));
  detail.onClose = (entry) => {
    ranking.chosen = null;
    ranking.choose();
    ranking.rows.get(entry)?.querySelector("button")?.focus();
  };
  detail.clear();
  describe();
  listen();
  await awaitModels();
}

start();
