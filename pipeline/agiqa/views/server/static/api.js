// What the page asks of its server; every answer is JSON, every failure an Error in words.

const API = "/api/v1";
const PATIENCE = 8; // times that a full queue is tried again
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function answer(path, options = {}) {
  for (let turn = 0; ; turn += 1) {
    const response = await fetch(API + path, options).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer: is it still running?");
    });
    if (response.ok) return response.json();
    if (response.status === 503 && turn < PATIENCE) {
      await pause(Number(response.headers.get("retry-after")) || 2);
      continue;
    }
    const problem = await response.json().catch(() => ({})); // not JSON: the status says enough
    throw new Error(problem.detail || `the server answered with status ${response.status}`);
  }
}

function send(path, content, signal) {
  if (content instanceof FormData) return answer(path, { method: "POST", body: content, signal });
  const headers = { "content-type": "application/json" };
  return answer(path, { method: "POST", headers, body: JSON.stringify(content), signal });
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of fields) body.append(name, value, ...(value instanceof File ? [value.name] : []));
  return body;
}

export const run = () => answer("/run");
export const folder = () => answer("/folder");
export const ready = async () => (await (await fetch("/health")).json()).ready;
export const folderPicture = (number, size) => `${API}/folder/${number}/picture?size=${size}`;

// Scores of images that have one kind and prompt.
export function scores(entries, signal) {
  if (entries[0].number !== undefined) {
    return send("/folder/scores", { numbers: entries.map((entry) => entry.number), image_prompt: entries[0].prompt }, signal);
  }
  const fields = entries.flatMap((entry) => [["images", entry.file], ["image_prompts", entry.prompt]]);
  return send("/scores", form(fields), signal);
}

export function explanation(entry, kinds, signal) {
  if (entry.number !== undefined) {
    return send(`/folder/${entry.number}/explanations`, { kinds, image_prompt: entry.prompt }, signal);
  }
  const fields = [["image", entry.file], ["image_prompt", entry.prompt], ...kinds.map((kind) => ["kinds", kind])];
  return send("/explanations", form(fields), signal);
}
