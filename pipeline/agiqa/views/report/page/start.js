"use strict";
// Stands behind the large pictures, all that the gallery's first page needs; the small ones follow.
(() => {
  const first = () => gallery.rows().slice(0, 1).forEach(plots.show);
  gallery.start();
  first();
  window.addEventListener("pageshow", (event) => {
    // Filters that the browser had kept may have come back, and ask for other pictures.
    if (event.persisted) return; // the page itself was kept
    if (!gallery.isStale() && !document.querySelector("#gallery .absent, #card .absent")) return;
    gallery.again();
    first();
  });
})();
