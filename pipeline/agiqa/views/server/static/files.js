// Files that people drop or choose, folders walked into.

const IMAGE = /\.(jpe?g|png|webp|bmp|gif|tiff?|pgm|ppm)$/i;
const isImage = ({ name }) => IMAGE.test(name) && !name.startsWith(".");

export const imagesOf = (files) => [...files].filter(isImage);

// All files of a drop; of folders, those whose names are an image's.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  for (const entry of entries) files.push(...await (entry.isFile ? [fileOf(entry)] : inside(entry)));
  return Promise.all(files);
}

const fileOf = (entry) => new Promise((done, failed) => entry.file(done, failed));

async function inside(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) { // a reader gives a hundred at a time
    const entries = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!entries.length) return files;
    for (const entry of entries) {
      if (entry.isDirectory) files.push(...await inside(entry));
      else if (isImage(entry)) files.push(await fileOf(entry));
    }
  }
}

// A small picture of a file the server has accepted; null where the browser cannot show its kind.
export async function thumbnail(file, side = 144) {
  try {
    const whole = await createImageBitmap(file);
    const scale = Math.min(1, side / Math.min(whole.width, whole.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(whole.width * scale));
    canvas.height = Math.max(1, Math.round(whole.height * scale));
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
    return blob && URL.createObjectURL(blob);
  } catch {
    return null;
  }
}
