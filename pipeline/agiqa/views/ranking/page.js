// Draws the cards that are in sight, and the controls over them. Rows as `page.py` writes them:
// [name, score, spread, [weights of the experts], picture as base64, whether the run was trained on
// it, what the splits predict that had not seen it or null], best first.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { low, high, experts, target, rows } = JSON.parse($("content").textContent);
  const CARDS = 120, BINS = 40, COLOURS = 6;
  const range = high - low || 1;
  const share = (score) => Math.min(Math.max((score - low) / range, 0), 1);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const shownAs = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
  // Whether a score lies within limits that a reader typed ("" is none). Compared is what the page
  // shows, at two digits or at as many as were typed: an image shown as 3.13 is not below 3.13.
  const within = (value, from, to, digits = 2) => {
    const seen = (typed) => Number(value.toFixed(Math.max(digits, Math.min((typed.split(".")[1] || "").length, 20))));
    return (from === "" || seen(from) >= Number(from)) && (to === "" || seen(to) <= Number(to));
  };
  const folderOf = (name) => name.slice(0, Math.max(name.lastIndexOf("/"), 0)) || ".";
  const orders = {
    "best first": (a, b) => a - b,
    "worst first": (a, b) => b - a,
    "largest spread": (a, b) => rows[b][2] - rows[a][2],
    "name": (a, b) => rows[a][0].localeCompare(rows[b][0], undefined, { numeric: true }),
  };
  experts.forEach((expert, k) => {
    orders[`weight of ${expert}`] = (a, b) => rows[b][3][k] - rows[a][3][k];
  });
  for (const order of Object.keys(orders)) $("sort").add(new Option(order));
  const folders = [...new Set(rows.map((row) => folderOf(row[0])))].sort();
  if (folders.length > 1) {
    $("folders").hidden = false;
    $("folder").add(new Option(`all ${folders.length}`, ""));
    for (const folder of folders) $("folder").add(new Option(folder));
  }
  experts.forEach((expert, k) => {
    const entry = make("li");
    entry.append(make("i", `series-${k % COLOURS}`), expert);
    $("key").append(entry);
  });

  // The histogram: outliers stand in the first and the last bin.
  const bin = (score) => Math.min(Math.floor(share(score) * BINS), BINS - 1);
  const edge = (k) => low + (range * k) / BINS;
  const counts = new Array(BINS).fill(0);
  for (const row of rows) counts[bin(row[1])]++;
  const tallest = Math.max(...counts, 1);
  const bars = counts.map((count, k) => {
    const button = make("button"), bar = make("i");
    const words = `${shownAs(edge(k), 2)} to ${shownAs(edge(k + 1), 2)}: ${count} image${count === 1 ? "" : "s"}`;
    button.type = "button";
    button.title = words;
    button.setAttribute("aria-label", words);
    button.disabled = count === 0;
    button.tabIndex = -1; // the fields above do the same by keyboard, in two steps
    bar.style.height = `${(100 * count) / tallest}%`;
    button.append(bar);
    button.addEventListener("click", () => {
      const again = button.getAttribute("aria-pressed") === "true";
      $("from").value = again || k === 0 ? "" : edge(k).toFixed(2);
      $("to").value = again || k === BINS - 1 ? "" : edge(k + 1).toFixed(2);
      chosen = again ? -1 : k;
      update();
    });
    $("histogram").append(button);
    return button;
  });

  let shown = [], drawn = 0, open = -1, chosen = -1;

  const card = (place) => {
    const [name, score, spread, weights, picture] = rows[shown[place]];
    const item = make("li"), button = make("button", "card");
    button.type = "button";
    if (picture) {
      const image = make("img");
      image.alt = "";
      image.decoding = "async";
      image.src = `data:image/webp;base64,${picture}`;
      button.append(image);
    } else {
      button.append(make("span", "absent", "no picture"));
    }
    const figure = make("span", "figure");
    figure.append(make("b", "", shownAs(score, 2)), make("small", "", `± ${spread.toFixed(2)} · #${shown[place] + 1}`));
    const bar = make("span", "place"), filled = make("i"), around = make("i");
    filled.style.width = `${100 * share(score)}%`;
    around.style.left = `${100 * share(score - spread)}%`;
    around.style.width = `${100 * (share(score + spread) - share(score - spread))}%`;
    bar.append(filled, around);
    const gate = make("span", "gate");
    weights.forEach((weight, k) => {
      const part = make("i", `series-${k % COLOURS}`);
      part.style.flexGrow = weight;
      gate.append(part);
    });
    gate.title = experts.map((expert, k) => `${expert} ${weights[k].toFixed(2)}`).join(", ");
    const file = make("span", "file");
    file.textContent = name.slice(name.lastIndexOf("/") + 1);
    file.title = name;
    button.append(figure, bar, gate, file);
    button.addEventListener("click", () => details(place));
    item.append(button);
    return item;
  };

  const draw = () => {
    const part = document.createDocumentFragment();
    const end = Math.min(drawn + CARDS, shown.length);
    for (; drawn < end; drawn++) part.append(card(drawn));
    $("cards").append(part);
    $("more").hidden = drawn >= shown.length;
  };

  const update = () => {
    const words = $("name").value.trim().toLowerCase(), folder = $("folder").value;
    const from = $("from").value, to = $("to").value;
    const least = from === "" ? -Infinity : Number(from), most = to === "" ? Infinity : Number(to);
    shown = [];
    rows.forEach(([name, score], k) => {
      if (chosen < 0 ? !within(score, from, to) : bin(score) !== chosen) return; // a bar: its own images
      if (words && !name.toLowerCase().includes(words)) return;
      if (folder && folderOf(name) !== folder) return;
      shown.push(k);
    });
    shown.sort(orders[$("sort").value]);
    const all = shown.length === rows.length;
    $("count").textContent = all ? `All ${rows.length.toLocaleString("en")} images`
      : `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} images`;
    bars.forEach((button, k) => {
      button.setAttribute("aria-pressed", String(k === chosen));
      button.classList.toggle("out", chosen < 0 ? edge(k + 1) <= least || edge(k) >= most : k !== chosen);
    });
    $("cards").replaceChildren();
    drawn = 0;
    draw();
  };

  const details = (place) => {
    const [name, score, spread, weights, picture, trained, heldOut] = rows[shown[place]];
    open = place;
    $("details-picture").src = picture ? `data:image/webp;base64,${picture}` : "data:,";
    $("details-picture").hidden = !picture;
    $("details-name").textContent = name;
    const figures = [["Score", shownAs(score, 3)], ["Spread over the splits", spread.toFixed(3)],
      ...(trained ? [["In the run's training", "yes: the score is optimistic"]] : []),
      ...(heldOut === null ? [] : [["Held out", shownAs(heldOut, 3)]]),
      ["Place", `${(shown[place] + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`],
      ...experts.map((expert, k) => [`Weight of ${expert}`, weights[k].toFixed(3)])];
    $("details-figures").replaceChildren(
      ...figures.flatMap(([term, value]) => [make("dt", "", term), make("dd", "", value)]));
    $("previous").disabled = place === 0;
    $("next").disabled = place === shown.length - 1;
    if (!$("details").open) $("details").showModal();
  };
  const step = (by) => {
    const to = open + by;
    if (to < 0 || to >= shown.length) return;
    while (drawn <= to) draw();
    details(to);
  };
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("details").close());
  $("details").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  $("details").addEventListener("close", () => {
    $("cards").children[open]?.firstChild.focus();
  });

  for (const id of ["sort", "folder"]) $(id).addEventListener("change", update);
  for (const id of ["name", "from", "to"]) {
    $(id).addEventListener("input", () => { chosen = -1; update(); });
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("reset").addEventListener("click", () => { chosen = -1; setTimeout(update); });
  $("csv").addEventListener("click", () => {
    const safe = (text) => {  // as spreadsheets.py: no formulas
      const number = /^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(text);
      return /^(\s*[=+\-@＝＋－＠]|[\t\r\n])/.test(text) && !number ? `'${text}` : text;
    };
    const cell = (text) => `"${safe(String(text)).replaceAll('"', '""')}"`;
    const head = ["image", "score", "spread", ...experts.map((expert) => `gate_${expert}`), "trained_on", "held_out", "target"];
    const lines = shown.map((k) => [rows[k][0], rows[k][1], rows[k][2], ...rows[k][3],
      rows[k][5] ? "yes" : "no", rows[k][6] ?? "", target]);
    const text = [head, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "scores.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  const themes = ["auto", "light", "dark"];
  let theme = 0;
  $("theme").addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    document.documentElement.style.colorScheme = theme ? themes[theme] : "light dark";
    $("theme").textContent = `Theme: ${themes[theme]}`;
  });
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < shown.length) draw();
  }, { rootMargin: "1200px" }).observe($("more"));
  update();
})();
