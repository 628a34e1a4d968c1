// The page: takes images, sends them a few at a time, and shows what comes back as it comes.

import * as asking from "./asking.js";
import { Detail } from "./detail.js";
import { two, element, thumbnail } from "./drawing.js";
import { dropped, pictures } from "./giving.js";
import { Ranking } from "./ranking.js";

const AT_ONCE = 6; // requests, as many as a browser opens to one server
const OVERHEAD = 4096; // bytes of a request beside the image

const $ = (id) => document.getElementById(id);
const MIB = 1024 * 1024;

let facts, ranking, detail;
let waiting = []; // entries not yet sent
let under = 0; // requests under way
let given = 0, answered = 0; // since the last pause
let stopper = new AbortController();

function say(words) {
  $("state").textContent = words;
  $("state").hidden = !words;
}

function refuse(name, reason) {
  $("refused").hidden = false;
  $("refused-list").append(element("li", {}, element("b", {}, name), `: ${reason}`));
}

function take(files, numbers) {
  const prompt = $("prompt").value.trim();
  if (facts.asks_image_prompt && !prompt) {
    say("This run needs the text that the images were generated from: write it first, then add the images.");
    $("prompt").focus();
    return;
  }
  say("");
  const entries = numbers
    ? numbers.map(([number, name]) => ({ name, number, prompt, thumb: asking.folderPicture(number, "small"), targets: {} }))
    : [...files].map((file) => ({ name: file.webkitRelativePath || file.name, file, prompt, targets: {} }));
  for (const entry of entries) {
    if (entry.file && entry.file.size + OVERHEAD > facts.limits.request_bytes) {
      const limit = (facts.limits.request_bytes / MIB).toFixed(0);
      refuse(entry.name, `is ${(entry.file.size / MIB).toFixed(0)} MiB, more than the limit of ${limit} MiB; it was not sent.`);
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
  while (under < AT_ONCE && waiting.length) send(waiting.shift());
  progress();
}

async function send(entry) {
  under += 1;
  entry.asked = true;
  ranking.changed(entry);
  try {
    const found = await asking.scores([entry], stopper.signal);
    if (found.scores.length) {
      const [score] = found.scores;
      Object.assign(entry, { score: score.score, spread: score.spread, gate: score.gate, targets: score.targets, imageId: score.image_id });
      ranking.changed(entry);
      if (entry.file) {
        entry.thumb = await thumbnail(entry.file);
        ranking.changed(entry);
      }
    } else {
      ranking.remove(entry);
      refuse(entry.name, `${found.refused[0].reason}.`);
    }
  } catch (error) {
    ranking.remove(entry);
    if (error.name !== "AbortError") refuse(entry.name, `${error.message}.`.replace(/\.\.$/, "."));
  }
  under -= 1;
  answered += 1;
  go();
  if (!under && !waiting.length) done();
}

function progress() {
  const left = waiting.length + under;
  $("progress").hidden = !left;
  $("bar").max = given || 1;
  $("bar").value = answered;
  $("progress-words").textContent = `${answered} of ${given} answered`;
}

function done() {
  given = answered = 0;
  $("work").hidden = !ranking.entries.length;
  const scored = ranking.entries.filter((each) => each.score !== undefined);
  if (scored.length && !ranking.chosen && innerWidth > 62 * 16) {
    ranking.show();
    ranking.choose(scored.reduce((best, each) => (each.score > best.score ? each : best)));
  }
}

function stop() {
  for (const entry of waiting) ranking.remove(entry);
  waiting = [];
  stopper.abort();
  stopper = new AbortController();
}

function clear() {
  stop();
  for (const entry of ranking.entries) if (entry.file && entry.thumb) URL.revokeObjectURL(entry.thumb);
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
    const found = pictures(event.target.files);
    if (found.length) take(found);
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
    const found = await dropped(event.dataTransfer);
    if (found.length) take(found);
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
    ? `test SRCC ${two(tested.srcc.median)}` + (tested.srcc.low === null ? "" : ` (${Math.round(100 * (tested.level ?? 0.95))} %: ${two(tested.srcc.low)} to ${two(tested.srcc.high)})`) + ` over ${tested.splits} ${tested.splits === 1 ? "split" : "splits"}`
    : "not evaluated yet";
  $("run-line").textContent = `${facts.target} as learned from ${facts.dataset}, ${facts.images.toLocaleString("en")} images, protocol ${facts.protocol}; ${figures}`;
  $("synthetic").hidden = !facts.synthetic;
  $("limits").textContent = `Up to ${(facts.limits.request_bytes / MIB).toFixed(0)} MiB and ${Math.round(facts.limits.pixels / 1e6)} megapixels an image. They stay on the machine that serves this page.`;
  if (facts.asks_image_prompt) $("prompt-need").textContent = "(this run needs it)";
}

async function offerFolder() {
  if (facts.folder === null) return;
  const listed = await asking.folder();
  const button = $("rank-folder");
  button.textContent = `Rank ${listed.name} (${listed.images.length})`;
  button.hidden = false;
  button.onclick = () => {
    const there = new Set(ranking.entries.map((each) => each.number));
    take([], listed.images.map((name, number) => [number, name]).filter(([number]) => !there.has(number)));
  };
}

async function awaitModels() {
  let told = false;
  while (!(await asking.ready().catch(() => false))) {
    if (!waiting.length && !under) say("The models are loading; images given now wait for them.");
    told = true;
    await new Promise((done) => setTimeout(done, 1000));
  }
  if (told) say("");
}

async function start() {
  try {
    facts = await asking.run();
  } catch (error) {
    say(`Cannot start: ${error.message}`);
    return;
  }
  detail = new Detail($("detail"), facts);
  ranking = new Ranking(facts, (entry) => detail.show(entry));
  detail.onClose = (entry) => {
    ranking.chosen = null;
    ranking.show();
    ranking.rows.get(entry)?.querySelector("button")?.focus();
  };
  detail.clear();
  describe();
  listen();
  await offerFolder();
  await awaitModels();
}

start();
