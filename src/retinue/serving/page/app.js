// The page: pictures come in by file, drop, paste, camera or sample; answers go to canvas and list.

import * as results from "./results.js";
import * as service from "./service.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const stage = new Stage($("stage"), $("canvas"), $("backdrop"));
const LEAST = 0.02; // what the server is asked for, so that the slider can go down to it

const state = { models: [], model: null, picture: null, answer: null, shown: [], fixed: -1, busy: null, stream: null };

// --- a picture comes in -------------------------------------------------------------------------

/** Look at a picture. Whatever was under way for another one is given up. */
async function look(picture, label) {
  state.busy?.abort();
  const busy = (state.busy = new AbortController());
  stopCamera();
  hideAlert();
  Object.assign(state, { picture, answer: null, shown: [], fixed: -1 });
  $("stage").classList.remove("empty");
  $("stage").dataset.state = "busy";
  $("canvas").setAttribute("aria-label", `${label}, being looked at`);
  unexplained();
  const image = await stage.show(picture);
  if (state.busy !== busy) return;
  stage.put(image);
  await answer(busy, label);
}

async function answer(busy, label) {
  const { model, picture } = state;
  if (!model) { // no key has been given yet: what is told of that stays, and the picture waits
    $("stage").dataset.state = "done";
    return;
  }
  $("stage").dataset.state = "busy";
  try {
    const told = await service.predict(picture, model.name, wishes(model), busy.signal);
    if (state.busy !== busy) return;
    state.answer = told;
    stage.size ??= told.size;
    if (!stage.image) stage.size = told.size;
    $("results").hidden = false;
    $("key-form").hidden = true;
    $("explain").hidden = !model.explains;
    facts(told);
    render(label);
  } catch (error) {
    if (error.name === "AbortError" || state.busy !== busy) return;
    refused(error);
  } finally {
    if (state.busy === busy) $("stage").dataset.state = "done";
  }
}

/** Options of the answer that let the slider go lower than the model's own threshold. */
function wishes({ options = {}, classes = [] }) {
  const asked = {};
  if ("confidence" in options) asked.confidence = LEAST;
  if ("threshold" in options) asked.threshold = LEAST;
  if ("top_k" in options) asked.top_k = Math.max(1, Math.min(5, classes.length));
  return asked;
}

/** Where the slider stands at first: what the model itself answers from. */
function usual({ options = {} }) {
  const own = options.confidence ?? options.threshold;
  return typeof own === "number" ? own : 0;
}

// --- answers ------------------------------------------------------------------------------------

const places = { best: $("best"), detail: $("best-detail"), list: $("list"), none: $("none") };

function render(label) {
  const least = Number($("threshold").value) / 100;
  $("threshold").style.setProperty("--at", `${$("threshold").value}%`);
  $("threshold-value").textContent = `${$("threshold").value} %`;
  if (!state.answer) return;
  state.shown = results.above(state.answer, least);
  state.fixed = -1;
  stage.chosen = -1;
  stage.boxes = state.answer.boxes ? state.shown : [];
  const said = results.show(state.answer, state.shown, places, choose, "threshold" in (state.model.options ?? {}));
  stage.draw();
  const alt = label ?? $("canvas").dataset.label ?? "Picture";
  $("canvas").dataset.label = alt;
  $("canvas").setAttribute("aria-label", `${alt}: ${said}`);
  $("said").textContent = said;
}

/** Point at one of the boxes: for as long as the pointer is there, or until chosen again. */
function choose(number, fix) {
  if (fix) state.fixed = state.fixed === number ? -1 : number;
  stage.chosen = number >= 0 && !fix ? number : state.fixed;
  for (const [k, button] of [...document.querySelectorAll("button.thing")].entries()) {
    button.setAttribute("aria-pressed", String(k === stage.chosen));
  }
  stage.draw();
}

function facts(told) {
  const { width, height } = told.size;
  const size = state.picture.size;
  const bytes = size > 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(size / 1e3))} kB`;
  $("facts").textContent = `${Math.round(told.milliseconds)} ms · ${width} × ${height} · ${bytes}`;
}

/** The picture has no answer, and says so; one that nobody can show leaves the stage. */
function refused(error) {
  state.answer = null;
  $("results").hidden = $("explain").hidden = true;
  $("canvas").setAttribute("aria-label", "Picture without an answer");
  if (error.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
    if (error.code === "no_key") return;
  } else if (!stage.image) clear();
  tell(error);
}

/** Back to where there is no picture: nothing of an earlier one stays beside what is said of another. */
function clear() {
  state.busy?.abort();
  stopCamera();
  Object.assign(state, { picture: null, answer: null, shown: [], fixed: -1, busy: null });
  unexplained();
  stage.put(null);
  $("results").hidden = $("explain").hidden = true;
  $("canvas").setAttribute("aria-label", "No picture yet");
  $("stage").classList.add("empty");
  $("stage").dataset.state = "empty";
  $("said").textContent = "";
}

function tell(error) {
  const strong = document.createElement("strong");
  strong.textContent = sentence(error.message);
  $("alert").replaceChildren(strong, error.mend ? sentence(error.mend) : "");
  $("alert").hidden = false;
  $("alert").scrollIntoView({ block: "nearest" });
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
const hideAlert = () => { $("alert").hidden = true; };

// --- the ways in --------------------------------------------------------------------------------

const isPicture = (file) => file.type.startsWith("image/") || /\.(heic|heif|jxl|avif|tiff?|jp2|ppm|bmp)$/i.test(file.name);

function take(files, from) {
  const picture = [...files].find(isPicture);
  markSample(-1);
  if (!picture) {
    clear();
    tell(new service.Refusal(0, { message: "That is not a picture", mend: "use a JPEG, PNG or WebP file, for example" }));
    return;
  }
  look(picture, picture.name ? `${from} ${picture.name}` : from);
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files, "Picture");
  $("file").value = ""; // so that the same one can be chosen again
});

let inside = 0;
addEventListener("dragenter", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  inside += 1;
  $("stage").classList.add("over");
});
addEventListener("dragleave", () => {
  inside = Math.max(0, inside - 1);
  if (!inside) $("stage").classList.remove("over");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("stage").classList.remove("over");
  if (event.dataTransfer?.files.length) take(event.dataTransfer.files, "Picture");
});
addEventListener("paste", (event) => {
  // Taken now: behind any await the clipboard is empty.
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    take(files, "Pasted picture");
  }
});

// --- the camera ---------------------------------------------------------------------------------

if (!navigator.mediaDevices?.getUserMedia) {
  $("camera").disabled = true;
  $("camera-why").hidden = false;
  $("camera-why").textContent = window.isSecureContext
    ? "This browser gives pages no camera."
    : "The camera needs HTTPS, or the address localhost: browsers withhold it from pages over plain HTTP.";
  $("camera").setAttribute("aria-describedby", "camera-why");
}
$("camera").addEventListener("click", async () => {
  if (state.stream) {
    stopCamera();
    return;
  }
  hideAlert();
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    const message = error.name === "NotAllowedError" ? "The camera was not allowed" : "No camera was found";
    tell(new service.Refusal(0, { message, mend: "allow it in the browser, or choose a file instead" }));
    return;
  }
  $("video").srcObject = state.stream;
  $("video").hidden = false;
  $("canvas").hidden = true;
  $("snap").hidden = false;
  $("stage").classList.remove("empty");
  $("camera").querySelector("span").textContent = "Stop the camera";
  await $("video").play();
  $("snap").focus();
});
$("snap").addEventListener("click", () => {
  const video = $("video");
  const still = document.createElement("canvas");
  [still.width, still.height] = [video.videoWidth, video.videoHeight];
  still.getContext("2d").drawImage(video, 0, 0);
  still.toBlob((picture) => picture && look(picture, "Picture of the camera"), "image/jpeg", 0.95);
});

function stopCamera() {
  if (!state.stream) return;
  for (const track of state.stream.getTracks()) track.stop();
  state.stream = null;
  $("video").srcObject = null;
  $("video").hidden = $("snap").hidden = true;
  $("camera").querySelector("span").textContent = "Camera";
  $("stage").classList.toggle("empty", !state.picture);
  stage.draw();
}

// --- samples ------------------------------------------------------------------------------------

function markSample(number) {
  for (const button of $("sample-list").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.number) === number));
  }
}

async function listSamples() {
  const names = await service.samples().catch(() => []);
  $("samples").hidden = names.length === 0;
  $("sample-list").replaceChildren(...names.map((name, number) => {
    const [item, button, image] = ["li", "button", "img"].map((tag) => document.createElement(tag));
    Object.assign(button, { type: "button", title: name });
    button.dataset.number = number;
    Object.assign(image, { src: `/samples/${number}`, alt: name, loading: "lazy", decoding: "async" });
    button.append(image);
    button.addEventListener("click", async () => {
      markSample(number);
      try {
        await look(await service.sample(number), `Sample ${name}`);
      } catch (error) {
        clear();
        tell(error);
      }
    });
    item.append(button);
    return item;
  }));
}

// --- explanations -------------------------------------------------------------------------------

function unexplained() {
  stage.overlay = null;
  $("explain").setAttribute("aria-pressed", "false");
  $("opacity-label").hidden = true;
}

$("explain").addEventListener("click", async () => {
  if (!state.answer) return;
  if (stage.overlay) {
    unexplained();
    stage.draw();
    return;
  }
  const busy = state.busy;
  $("stage").dataset.state = "busy";
  hideAlert();
  try {
    // Of boxes, all that was found, unless one is chosen.
    const target = state.answer.boxes ? state.shown[state.fixed]?.name : state.shown[0]?.name;
    const told = await service.explain(state.picture, state.model.name, target, busy.signal);
    if (state.busy !== busy) return;
    stage.overlay = told.overlay;
    $("explain").setAttribute("aria-pressed", "true");
    $("opacity-label").hidden = false;
    $("said").textContent = `Shown is what speaks for ${told.target || "what was found"}`;
    stage.draw();
  } catch (error) {
    if (error.name === "AbortError" || state.busy !== busy) return;
    if (error.status === 401) refused(error);
    else tell(error); // the answer stands, without a reason
  } finally {
    if (state.busy === busy) $("stage").dataset.state = "done";
  }
});
$("opacity").addEventListener("input", () => {
  stage.opacity = Number($("opacity").value) / 100;
  $("opacity").style.setProperty("--at", `${$("opacity").value}%`);
  stage.draw();
});

// --- everything else ----------------------------------------------------------------------------

$("threshold").addEventListener("input", () => render());
$("canvas").addEventListener("pointermove", (event) => {
  const number = stage.at(event.offsetX, event.offsetY);
  if (number !== stage.chosen && state.fixed < 0) choose(number, false);
});
$("canvas").addEventListener("pointerleave", () => stage.boxes.length && choose(-1, false));
$("canvas").addEventListener("click", (event) => {
  const number = stage.at(event.offsetX, event.offsetY);
  if (number >= 0 || state.fixed >= 0) choose(number >= 0 ? number : state.fixed, true);
});
$("copy").addEventListener("click", async () => {
  const { milliseconds, ...told } = state.answer;
  const text = JSON.stringify(told, null, 2);
  const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  $("copy").textContent = done ? "Copied" : "Cannot copy here";
  setTimeout(() => { $("copy").textContent = "Copy JSON"; }, 1600);
});
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  service.key.set($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  hideAlert();
  await begin();
  if (state.picture && state.model) await answer((state.busy = new AbortController()));
});

const THEMES = { "": "as the system has them", light: "light", dark: "dark" };
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[name]}`);
  $("theme").title = `Colours: ${THEMES[name]}`;
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
  localStorage.setItem("retinue-theme", next);
  theme(next);
});
$("opacity").style.setProperty("--at", `${$("opacity").value}%`);
const kept = localStorage.getItem("retinue-theme");
theme(kept in THEMES ? kept : "");
if (/Mac|iP(hone|ad)/.test(navigator.platform)) $("paste-key").textContent = "⌘";

function pick(name) {
  const again = state.model !== null;
  state.model = state.models.find((model) => model.name === name) ?? state.models[0];
  results.about(state.model, {
    name: $("about-name"), line: $("about-line"), facts: $("about-facts"),
    classesTitle: $("about-classes-title"), classes: $("about-classes"),
  });
  $("about").hidden = false;
  $("threshold").value = Math.round(100 * usual(state.model));
  render();
  if (again && state.picture) {
    state.busy?.abort();
    hideAlert();
    unexplained();
    stage.boxes = [];
    stage.draw();
    answer((state.busy = new AbortController()));
  }
}
$("model").addEventListener("change", () => pick($("model").value));

async function begin() {
  try {
    state.models = await service.models();
  } catch (error) {
    refused(error);
    return;
  }
  const chosen = state.models.find(({ name }) => name === state.model?.name);
  if (!chosen) {
    $("model").replaceChildren(...state.models.map(({ name }) => new Option(name, name)));
    $("model-choice").hidden = state.models.length < 2;
    state.model = null;
    pick(state.models[0].name);
  } else if (chosen.ready && !state.model.ready) { // what is told of it is there only now
    state.model = null;
    pick(chosen.name);
  } else {
    state.model = chosen; // as it was left, with the slider
  }
  if (state.models.some(({ ready }) => !ready)) setTimeout(begin, 1500);
}

listSamples();
await begin();
