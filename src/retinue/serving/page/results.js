// What was answered, in words and bars. Names are text, whatever stands in them.

import { colourOf } from "./stage.js";

const percent = (score) => (score > 0 && score < 0.0005 ? "< 0.1 %" : `${(100 * score).toFixed(1)} %`);

function made(tag, classes, text) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** An entry with a bar. */
function bar({ name, score }) {
  const item = made("li");
  const row = made("div", "answer");
  const track = made("div", "track");
  const fill = made("div", "fill");
  fill.style.setProperty("--score", `${100 * score}%`);
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  row.append(made("span", "name", name), made("span", "score", percent(score)), track);
  item.append(row);
  return item;
}

/** An entry that points at its box. */
function thing({ name, score }, number, choose) {
  const item = made("li");
  const button = made("button", "thing");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.style.setProperty("--colour", colourOf(name));
  const swatch = made("span", "swatch");
  swatch.setAttribute("aria-hidden", "true");
  button.append(swatch, made("span", "name", name), made("span", "score", percent(score)));
  button.addEventListener("click", () => choose(number, true));
  for (const [event, to] of [["pointerenter", number], ["pointerleave", -1], ["focus", number], ["blur", -1]]) {
    button.addEventListener(event, () => choose(to, false));
  }
  item.append(button);
  return item;
}

/** What is over the threshold, best first. */
export const above = (answer, least) =>
  (answer.boxes ?? answer.classes ?? []).filter(({ score }) => score >= least);

/** `2 dogs`-like words for a headline: the names with their numbers, most first. */
export function summary(things) {
  const counts = new Map();
  for (const { name } of things) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => (n > 1 ? `${n} × ${name}` : name));
  return parts.length > 4 ? `${parts.slice(0, 3).join(", ")} and ${parts.length - 3} more` : parts.join(", ");
}

/** Fill the list and the headline; gives a sentence for those who listen. `several`: whether any number
 * of classes may be right. */
export function show(answer, shown, places, choose, several) {
  const { best, detail, list, none } = places;
  const boxes = Boolean(answer.boxes);
  const all = answer.boxes ?? answer.classes ?? [];
  none.hidden = shown.length > 0;
  none.textContent = all.length
    ? "Nothing is that sure. Move the slider to the left to see more."
    : "Nothing was found in this picture.";
  list.replaceChildren(...shown.map((one, k) => (boxes ? thing(one, k, choose) : bar(one))));
  list.hidden = shown.length === 0;
  if (!shown.length) {
    best.textContent = boxes ? "Nothing found" : "Not sure";
    detail.textContent = all.length ? `${all.length} below the threshold` : "";
    return best.textContent;
  }
  if (boxes) {
    best.textContent = summary(shown);
    const hidden = all.length - shown.length;
    detail.textContent = `${shown.length} found${hidden ? `, ${hidden} less sure` : ""}`;
    return `${shown.length} found: ${best.textContent}`;
  }
  if (several) {
    best.textContent = summary(shown);
    detail.textContent = shown.length === 1 ? `${percent(shown[0].score)} sure` : `${shown.length} labels`;
    return `${shown.length} labels: ${best.textContent}`;
  }
  best.textContent = shown[0].name;
  detail.textContent = `${percent(shown[0].score)} sure`;
  return `${shown[0].name}, ${percent(shown[0].score)} sure`;
}

/** What is known of a model. */
export function about(model, places) {
  places.name.textContent = model.name;
  places.line.textContent = model.ready ? `${model.network} · ${model.task}` : "is being loaded";
  if (!model.ready) return;
  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 4 });
  const rows = [
    ["Classes", number(model.classes.length)],
    ["Looks at", `${model.input.width} × ${model.input.height} pixels`],
    ["Runs on", `${model.engine}, ${model.device}`],
    ...["top1", "map50", "map", "map50_95"].filter((name) => typeof model.figures?.[name] === "number")
      .slice(0, 2).map((name) => [`${name} (${model.figures_of})`, number(model.figures[name])]),
    ["Version", model.version],
  ];
  places.facts.replaceChildren(...rows.flatMap(([name, value]) => [made("dt", "", name), made("dd", "", value)]));
  places.classesTitle.textContent = "What it knows";
  places.classes.replaceChildren(...model.classes.slice(0, 400).map((name) => made("li", "", name)));
  if (model.classes.length > 400) places.classes.append(made("li", "quiet", `and ${model.classes.length - 400} more`));
}
