"use strict";
// One image in words and marks: shared by the plot's card, the gallery and the detail view.
const card = (() => {
  const { low, high, truth } = report.data;

  function place(value) {
    const share = (value - low) / (high - low || 1);
    return Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10;
  }

  // MOS as a ring, score as a diamond, the gap between them, on the scale of the MOS.
  function scale(row) {
    const mos = place(report.mos(row));
    const score = place(report.score(row));
    const span = element("i", { className: "span" });
    span.style.left = `${Math.min(mos, score)}%`;
    span.style.width = `${Math.abs(mos - score)}%`;
    const truly = element("i", { className: "dot truth" });
    truly.style.left = `${mos}%`;
    const ours = element("i", { className: "dot score" });
    ours.style.left = `${score}%`;
    return element("span", { className: "scale", ariaHidden: "true" }, span, truly, ours);
  }

  function figures(row) {
    const word = truth === "MOS" ? "MOS" : "true";
    return element(
      "span",
      { className: "figures" },
      `${word} `, element("b", {}, number(report.mos(row))),
      ", score ", element("b", {}, number(report.score(row))),
      element("span", { className: "error" }, ` (${number(report.error(row), 2, true)})`),
    );
  }

  function picture(row, large) {
    const source = large ? report.large(row) : report.small(row);
    if (!source) return element("div", { className: "absent" }, "not available");
    const alt = report.prompt(row) || report.path(row);
    return element("img", { src: source, alt, decoding: "async" });
  }

  function gate(row) {
    const run = report.run();
    const weights = run.gate.map((column) => column[row]);
    const list = element("dl", { className: "gate" });
    run.experts.forEach((expert, index) => {
      const weight = weights[index];
      const bar = element("i", { className: `bar series-${(index % 8) + 1}` });
      bar.style.width = `${Math.min(100, Math.max(0, (weight || 0) * 100))}%`;
      list.append(
        element("dt", {}, expert),
        element("dd", {}, element("span", { className: "track" }, bar), number(weight, 3)),
      );
    });
    return list;
  }

  function words(row) {
    const parts = [scale(row), figures(row)];
    if (report.prompt(row)) {
      parts.push(element("span", { className: "prompt", title: report.prompt(row) }, report.prompt(row)));
    }
    const from = report.generator(row) || report.path(row);
    parts.push(element("span", { className: "from", title: report.path(row) }, from));
    return parts;
  }

  return { picture, words, gate, scale, figures };
})();
