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

function send(path, fields, signal) {
  const body = new FormData();
  for (const [name, value] of fields) body.append(name, value, ...(value instanceof File ? [value.name] : []));
  return answer(path, { method: "POST", body, signal });
}

export const run = () => answer("/run");
export const ready = async () => (await (await fetch("/health")).json()).ready;

// Scores of images that have one prompt.
export const scores = (entries, signal) =>
  send("/scores", entries.flatMap(({ file, prompt }) => [["images", file], ["image_prompts", prompt]]), signal);

export const explanation = ({ file, prompt }, kind, signal) =>
  send("/explanations", [["image", file], ["image_prompt", prompt], ["kinds", kind]], signal);
