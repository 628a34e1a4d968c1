// Starts the gallery, from behind the large pictures, all that its first page needs; the small ones
// follow.
import { galleryIsStale, gallery, startGallery } from "./images.js";
import { showImage } from "./plots.js";

startGallery();
gallery.shown.slice(0, 1).forEach(showImage);
window.addEventListener("pageshow", (event) => {
  // Filters that the browser had kept may have come back, and ask for other pictures.
  if (event.persisted) return; // the page itself was kept
  if (!galleryIsStale() && !document.querySelector("#gallery .absent, #card .absent")) return;
  gallery.choose();
  gallery.shown.slice(0, 1).forEach(showImage);
});
