// One gallery for report, ranking and served page: what passes the filters, in order, a part of it
// in the document; and a dialog for one of them.

export class Gallery {
  // list: the element that holds the tiles; part: how many are drawn at once; and these functions:
  // items(): all; passes(), order(): a filter and a comparison by what the reader has chosen;
  // tile(item, place): its element; drawn(): called after drawing.
  constructor(parts) {
    Object.assign(this, parts);
    this.part ??= Infinity;
    this.shown = []; // what passes, in order
    this.start = this.end = 0; // of what is drawn
  }

  choose() {
    this.shown = this.items().filter(this.passes()).sort(this.order());
    this.show(0);
  }

  show(start) {
    this.start = this.end = start;
    this.list.replaceChildren();
    this.more();
  }

  more() {
    const next = this.shown.slice(this.end, this.end + this.part);
    this.list.append(...next.map((item, k) => this.tile(item, this.end + k)));
    this.end += next.length;
    this.drawn();
  }
}

export class Viewer {
  // buttons: back, forth and close; render(item, place, items) fills the dialog.
  constructor(dialog, buttons, render) {
    Object.assign(this, { dialog, buttons, render, items: [], place: 0 });
    buttons.close.addEventListener("click", () => dialog.close());
    buttons.back.addEventListener("click", () => this.step(-1));
    buttons.forth.addEventListener("click", () => this.step(1));
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the ground behind it
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.step(-1);
      else if (event.key === "ArrowRight") this.step(1);
    });
  }

  open(items, place = 0) {
    Object.assign(this, { items, place });
    this.render(items[place], place, items);
    this.buttons.back.disabled = place === 0;
    this.buttons.forth.disabled = place + 1 >= items.length;
    if (!this.dialog.open) this.dialog.showModal();
  }

  step(by) {
    const place = this.place + by;
    if (place >= 0 && place < this.items.length) this.open(this.items, place);
  }
}
