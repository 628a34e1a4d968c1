// What people give: files that are dropped or chosen, folders walked into.

const PICTURE = /\.(jpe?g|png|webp|bmp|gif|tiff?|pgm|ppm|jp2)$/i;

// All files of a drop; of folders, those whose names are an image's.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) found.push(await file(entry));
    else found.push(...await inside(entry));
  }
  return found;
}

export const pictures = (files) => [...files].filter((each) => PICTURE.test(each.name) && !each.name.startsWith("."));

const file = (entry) => new Promise((done, failed) => entry.file(done, failed));

async function inside(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const entry of some) {
      if (entry.isDirectory) found.push(...await inside(entry));
      else if (PICTURE.test(entry.name) && !entry.name.startsWith(".")) found.push(await file(entry));
    }
  }
}
