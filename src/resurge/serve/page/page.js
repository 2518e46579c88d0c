import { colourOf, drawMap, drawObjects, drawPicture } from "./drawing.js";

const at = (id) => document.getElementById(id);
const canvas = at("picture");
let info = null;
let shown = null; // { file, image, entry, explained }: what stands on the page
let turn = 0; // of the latest question; answers to older ones are passed over

// ------------------------------------------------------------------------------------------------- the server

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  let message = `The server said ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // not from this server: a proxy, say
  }
  const error = new Error(message);
  error.status = response.status;
  throw error;
}

async function meet() {
  try {
    info = await (await ask("info")).json();
  } catch (error) {
    if (error.status === 401) {
      at("token-form").hidden = false;
      at("model").textContent = "The server asks for a token.";
    } else {
      at("model").textContent = error.message || "The server cannot be reached.";
      if (error.status === 503) setTimeout(meet, 1000);
    }
    return;
  }
  at("token-form").hidden = true;
  const count = `${info.classes.length} class${info.classes.length === 1 ? "" : "es"}`;
  at("model").textContent = `${info.task} · ${count} · ${info.format}, ${info.precision}`;
  at("explain").hidden = !info.explains;
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value.trim());
  meet();
});

// ----------------------------------------------------------------------------------------------------- an image

async function show(file) {
  const mine = ++turn;
  complain("");
  document.body.classList.add("busy");
  try {
    if (!info) await meet();
    if (!info) throw new Error("There is no model to ask yet.");
    if (file.size > info.limits.max_bytes) {
      const [has, takes] = [file.size, info.limits.max_bytes].map((size) => (size / 1e6).toFixed(1));
      throw new Error(`The file has ${has} MB; this server takes ${takes} MB.`);
    }
    // All from the lowest score the slider has; what is shown is chosen here.
    const response = await ask("predict?score=0.05&top=5", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    const entry = (await response.json()).images[0];
    // Upright, as the server sees it; empty where the browser cannot show the file.
    const image = await createImageBitmap(file).catch(() => new OffscreenCanvas(entry.width, entry.height));
    if (mine !== turn) return;
    shown = { file, image, entry, explained: false };
    at("result").hidden = false;
    await paint();
  } catch (error) {
    if (mine === turn) complain(error.message || String(error));
  } finally {
    if (mine === turn) document.body.classList.remove("busy");
  }
}

function complain(message) {
  at("problem").textContent = message;
  at("problem").hidden = !message;
}

async function paint() {
  const { image, entry, file } = shown;
  shown.explained = false;
  at("explain").textContent = "Where did it look?";
  drawPicture(canvas, image);
  at("caption").textContent = `${file.name || "pasted image"}, ${entry.width} × ${entry.height}`;
  at("threshold").hidden = !entry.objects;
  if (entry.objects) {
    const least = Number(at("score").value);
    const objects = entry.objects.filter((found) => found.score >= least);
    drawObjects(canvas, objects, info.classes, entry);
    at("heading").textContent = objects.length ? `${objects.length} found` : "Nothing found";
    list(objects.map((found) => [found.class, found.score]), true);
  } else if (entry.map) {
    await drawMap(canvas, entry.map, info.classes);
    at("heading").textContent = "Share of the image";
    list(entry.classes.map((found) => [found.class, found.share]), true);
  } else {
    at("heading").textContent = "Most probable";
    list(entry.predictions.map((found) => [found.class, found.score]), false);
  }
  canvas.setAttribute("aria-label", `${at("heading").textContent}: ${at("answers").textContent}`.slice(0, 300));
}

function list(rows, coloured) {
  at("answers").replaceChildren(
    ...rows.map(([name, share]) => {
      const item = document.createElement("li");
      const row = document.createElement("div");
      row.className = "row";
      const label = document.createElement("span");
      if (coloured) {
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = colourOf(info.classes.indexOf(name));
        label.append(swatch);
      }
      label.append(name);
      const value = document.createElement("span");
      value.textContent = `${(100 * share).toFixed(1)} %`;
      row.append(label, value);
      const bar = document.createElement("div");
      bar.className = "bar";
      const part = document.createElement("div");
      part.style.width = `${100 * share}%`;
      bar.append(part);
      item.append(row, bar);
      return item;
    }),
  );
}

at("score").addEventListener("input", () => {
  at("least").textContent = Number(at("score").value).toFixed(2);
  if (shown) paint();
});

at("explain").addEventListener("click", async () => {
  if (!shown) return;
  if (shown.explained) {
    await paint();
    return;
  }
  const mine = turn;
  at("explain").disabled = true;
  try {
    const response = await ask("explain", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: shown.file,
    });
    const picture = await createImageBitmap(await response.blob());
    if (mine !== turn) return;
    drawPicture(canvas, picture);
    shown.explained = true;
    at("explain").textContent = "Show the answer";
    canvas.setAttribute("aria-label", "Where the network looked, as a heat map");
  } catch (error) {
    complain(error.message || String(error));
  } finally {
    at("explain").disabled = false;
  }
});

// ------------------------------------------------------------------------------------------- how images come in

at("file").addEventListener("change", () => {
  if (at("file").files.length) show(at("file").files[0]);
  at("file").value = ""; // so that the same file can be chosen again
});

addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) show(file);
});

// On the whole window: dropped beside the field, an image would replace the page.
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
});

meet();
