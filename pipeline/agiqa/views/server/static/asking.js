// What the page asks of its server; every answer is JSON, every failure an Error in words.

const API = "/api/v1";
const AGAIN = [503]; // the queue is full: come again
const PATIENCE = 8; // times

async function answer(path, options = {}) {
  for (let turn = 0; ; turn += 1) {
    let response;
    try {
      response = await fetch(API + path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer: is it still running?");
    }
    if (response.ok) return response.json();
    if (AGAIN.includes(response.status) && turn < PATIENCE) {
      const seconds = Number(response.headers.get("retry-after")) || 2;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    let words = `the server answered with status ${response.status}`;
    try {
      words = (await response.json()).detail || words;
    } catch { /* not JSON: the status says enough */ }
    throw new Error(words);
  }
}

export const run = () => answer("/run");
export const folder = () => answer("/folder");

export async function ready() {
  const response = await fetch("/health");
  return (await response.json()).ready;
}

export function scores(entries, signal) {
  if (entries[0].number !== undefined) {
    const asked = { numbers: entries.map((each) => each.number), image_prompt: entries[0].prompt };
    return answer("/folder/scores", json(asked, signal));
  }
  const body = new FormData();
  for (const each of entries) {
    body.append("images", each.file, each.file.name);
    body.append("image_prompts", each.prompt);
  }
  return answer("/scores", { method: "POST", body, signal });
}

export function explanation(entry, kinds, signal) {
  if (entry.number !== undefined) {
    const asked = { kinds, image_prompt: entry.prompt };
    return answer(`/folder/${entry.number}/explanations`, json(asked, signal));
  }
  const body = new FormData();
  body.append("image", entry.file, entry.file.name);
  body.append("image_prompt", entry.prompt);
  for (const kind of kinds) body.append("kinds", kind);
  return answer("/explanations", { method: "POST", body, signal });
}

export const folderPicture = (number, size) => `${API}/folder/${number}/picture?size=${size}`;

function json(content, signal) {
  const headers = { "content-type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(content), signal };
}
