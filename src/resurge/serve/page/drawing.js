// What a model found, drawn over a picture.

// A colour a class; neighbours in the list differ by the golden angle.
export function colourOf(index) {
  return `hsl(${Math.round((index * 137.508) % 360)} 85% ${index % 2 ? 42 : 55}%)`;
}

function rgbOf(index) {
  const probe = new OffscreenCanvas(1, 1).getContext("2d");
  probe.fillStyle = colourOf(index);
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data;
}

// COCO's compressed run lengths: each number in groups of five bits from the lowest, each group a sign from '0' on;
// from the third number on, what is told is the difference from the last but one. Runs go down the columns and
// begin with what is not in the mask. Gives the places of the first and behind the last pixel of each run in it.
export function runsOf(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let group;
    do {
      group = counts.charCodeAt(at++) - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
    } while (group & 32 && at < counts.length);
    if (group & 16) value -= 2 ** shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  const runs = [];
  let place = 0;
  lengths.forEach((length, number) => {
    if (number % 2 && length > 0) runs.push([place, place + length]);
    place += length;
  });
  return runs;
}

// The mask as 1 and 0, row by row.
export function maskOf({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  for (const [from, to] of runsOf(counts)) {
    for (let place = from; place < to; place++) {
      mask[(place % height) * width + Math.floor(place / height)] = 1;
    }
  }
  return mask;
}

// A picture for the masks, of their own size: pixels of class `indexAt(place)`, or none where that is negative.
function tint(width, height, indexAt, alpha) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const colours = new Map();
  for (let place = 0; place < width * height; place++) {
    const index = indexAt(place);
    if (index < 0) continue;
    if (!colours.has(index)) colours.set(index, rgbOf(index));
    const colour = colours.get(index);
    pixels.data.set([colour[0], colour[1], colour[2], alpha], 4 * place);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// Draw `image`, as large as it is but no longer than `most` pixels; gives the factor.
export function drawPicture(canvas, image, most = 1600) {
  const factor = Math.min(1, most / Math.max(image.width, image.height));
  canvas.width = Math.max(1, Math.round(image.width * factor));
  canvas.height = Math.max(1, Math.round(image.height * factor));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return factor;
}

export function drawObjects(canvas, objects, classes, entry) {
  const context = canvas.getContext("2d");
  const [across, down] = [canvas.width / entry.width, canvas.height / entry.height];
  for (const found of objects) {
    if (!found.mask) continue;
    const mask = maskOf(found.mask);
    const index = classes.indexOf(found.class);
    const [height, width] = found.mask.size;
    context.drawImage(tint(width, height, (place) => (mask[place] ? index : -1), 115), 0, 0, canvas.width, canvas.height);
  }
  const line = Math.max(1.5, Math.max(canvas.width, canvas.height) / 400);
  const letters = Math.max(11, Math.round(Math.max(canvas.width, canvas.height) / 55));
  context.lineWidth = line;
  context.font = `600 ${letters}px system-ui, sans-serif`;
  context.textBaseline = "top";
  // the surest last, on top of the others
  for (const found of [...objects].reverse()) {
    const [left, top, right, bottom] = found.box;
    const colour = colourOf(classes.indexOf(found.class));
    context.strokeStyle = colour;
    context.strokeRect(left * across, top * down, (right - left) * across, (bottom - top) * down);
    if (objects.length > 25) continue; // their words would hide each other; the list beside has them
    const words = `${found.class} ${Math.round(100 * found.score)} %`;
    const width = context.measureText(words).width + 6;
    const x = Math.max(0, Math.min(left * across, canvas.width - width));
    const y = Math.max(0, top * down - letters - 4);
    context.fillStyle = colour;
    context.fillRect(x, y, width, letters + 4);
    context.fillStyle = "#fff";
    context.fillText(words, x + 3, y + 2);
  }
}

// A label map: a grey PNG whose values are class indices. The class called background stays bare.
export async function drawMap(canvas, base64, classes) {
  const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  const options = { colorSpaceConversion: "none" };
  const map = await createImageBitmap(new Blob([bytes], { type: "image/png" }), options);
  const reader = new OffscreenCanvas(map.width, map.height).getContext("2d");
  reader.drawImage(map, 0, 0);
  const { data } = reader.getImageData(0, 0, map.width, map.height);
  const bare = classes.indexOf("background");
  const at = (place) => (data[4 * place] === bare || data[4 * place] >= classes.length ? -1 : data[4 * place]);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(tint(map.width, map.height, at, 135), 0, 0, canvas.width, canvas.height);
}
