"use strict";
// One image in a dialog: picture, map, figures, gate, reasons, alike rated images. Then starts the page.
const detail = (() => {
  const dialog = document.getElementById("detail");
  const content = document.getElementById("detail-content");
  let order = [];
  let at = 0;

  function facts(row) {
    const list = element("dl", { className: "facts" });
    const add = (name, value) => list.append(element("dt", {}, name), element("dd", {}, value));
    add(report.data.truth, number(report.mos(row), 3));
    report.columns.runs.forEach((run, index) => {
      const error = run.score[row] === null ? null : run.score[row] - report.mos(row);
      const name = report.columns.runs.length > 1 ? `Score, ${run.name}` : "Score";
      add(name, `${number(run.score[row], 3)} (${number(error, 3, true)})`);
      if (index === report.state.run) add("Tested in", `${report.columns.splits[row]} split${report.columns.splits[row] === 1 ? "" : "s"}`);
    });
    if (report.generator(row)) add("Generator", report.generator(row));
    add("File", report.path(row));
    return list;
  }

  function reasons(found) {
    if (!found || !found.reasons.length) return [];
    const list = element("ul", { className: "reasons" });
    for (const [aspect, text, answer, percentile, strength] of found.reasons) {
      const figures = [
        String(aspect || "").replaceAll("_", " "),
        answer === null || answer === undefined ? "" : `answer ${typeof answer === "number" ? number(answer) : answer}`,
        percentile === null || percentile === undefined ? "" : `percentile ${number(percentile, 1)}`,
        strength === null || strength === undefined ? "" : `strength ${number(strength)}`,
      ].filter(Boolean);
      list.append(element("li", {}, text || aspect, element("small", {}, ` ${figures.join(", ")}`)));
    }
    return [element("h3", {}, "Reasons"), list];
  }

  function neighbours(found) {
    if (!found || !found.neighbours.length) return [];
    const list = element("ul", { className: "neighbours" });
    for (const [row, path, mos, score, similarity] of found.neighbours) {
      const said = element("small", {}, `rated ${number(mos)}${score === null ? "" : `, score ${number(score)}`}${similarity === null ? "" : `, alike ${number(similarity)}`}`);
      if (row >= 0) {
        const button = element("button", { type: "button", title: path }, card.picture(row, false), said);
        button.addEventListener("click", () => open(row, [row]));
        list.append(element("li", {}, button));
      } else {
        list.append(element("li", {}, element("span", { className: "from" }, path), said));
      }
    }
    return [element("h3", {}, "Alike, and rated"), list];
  }

  function render() {
    const row = order[at];
    const found = report.explanation(row);
    const pictures = element("div", { className: "pictures" }, card.picture(row, true));
    const map = report.map(row);
    if (map) {
      pictures.append(element("img", { src: map, alt: "Map of where the score comes from" }));
    }
    const title = element("h2", { id: "detail-title" }, report.prompt(row) || report.path(row));
    content.replaceChildren(
      pictures,
      element("div", {}, title, card.scale(row), facts(row), ...gate(row), ...reasons(found), ...neighbours(found)),
    );
    document.getElementById("detail-place").textContent =
      order.length > 1 ? `${(at + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}` : "";
    document.getElementById("detail-back").disabled = at === 0;
    document.getElementById("detail-forth").disabled = at + 1 >= order.length;
  }

  function gate(row) {
    return report.run().experts.length ? [element("h3", {}, "Gate"), card.gate(row)] : [];
  }

  function open(row, rows = [row]) {
    order = rows;
    at = Math.max(0, rows.indexOf(row));
    render();
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function step(by) {
    if (at + by < 0 || at + by >= order.length) return;
    at += by;
    render();
  }

  document.getElementById("detail-close").addEventListener("click", () => dialog.close());
  document.getElementById("detail-back").addEventListener("click", () => step(-1));
  document.getElementById("detail-forth").addEventListener("click", () => step(1));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the ground behind it
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  return { open };
})();

// The main plot now, the pictures once the parser has come to them.
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const named = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
  };
  const changed = () => {
    named();
    plots.again();
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    changed();
  });
  dark.addEventListener("change", changed);
  const run = document.getElementById("run");
  if (run) {
    run.addEventListener("change", () => {
      report.state.run = Number(run.value);
      plots.again();
      gallery.again();
    });
  }
  plots.start();
  named();
})();
