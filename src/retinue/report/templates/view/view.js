"use strict";
// What is shown is a page of the images that the filters let through; what is known of an image is
// loaded with the portion that it is in.
const PAGE = 60;
const get = (id) => document.getElementById(id);
const make = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const number = (n) => n.toLocaleString("en");
const hue = (k) => (typeof k === "number" ? (k * 137.508 + 210) % 360 : 0);
const view = {
  portions: new Map(), waiting: new Map(), names: null, chosen: { c: null, s: null, q: "", p: 0 },

  begin(catalogue) {
    this.all = catalogue;
    this.bad = new Set(catalogue.bad);
    const total = catalogue.of.length;
    const parts = [`${number(total)} images`, `${number(catalogue.classes.length)} classes`, `read as ${catalogue.format}`];
    get("about").textContent = parts.join(" · ");
    const counts = new Array(catalogue.classes.length).fill(0);
    let without = 0;
    for (const labels of catalogue.labels) {
      if (!labels.length) without++;
      for (const label of labels) counts[label]++;
    }
    this.chips(catalogue, total);
    const list = get("classes");
    catalogue.classes.forEach((name, k) => list.append(this.choice(name, counts[k], k)));
    if (without) list.append(this.choice("without a label", without, "none"));
    if (this.bad.size) list.append(this.choice("unreadable", this.bad.size, "bad"));
    const find = get("find-class");
    find.hidden = catalogue.classes.length < 15;
    find.addEventListener("input", () => {
      const wanted = find.value.toLowerCase();
      for (const item of list.children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
    });
    addEventListener("hashchange", () => this.read());
    this.read();
  },

  chips(catalogue, total) {
    const counts = new Array(catalogue.splits.length).fill(0);
    for (const split of catalogue.of) if (split >= 0) counts[split]++;
    const add = (name, count, split) => {
      const chip = make("button", `${name} `);
      chip.type = "button";
      chip.append(make("span", number(count)));
      chip.dataset.split = String(split);
      chip.addEventListener("click", () => this.go({ s: split, p: 0 }));
      get("splits").append(chip);
    };
    add("all", total, null);
    catalogue.splits.forEach((name, k) => add(name, counts[k], k));
  },

  choice(name, count, which) {
    const item = make("li"), button = make("button");
    button.type = "button";
    button.dataset.which = String(which);
    if (typeof which === "number") {
      const swatch = make("span", "", "swatch");
      swatch.style.setProperty("--hue", hue(which));
      button.append(swatch);
    }
    button.append(make("span", name, "name"), make("span", number(count)));
    button.addEventListener("click", () => this.go({ c: this.chosen.c === which ? null : which, p: 0 }));
    item.append(button);
    return item;
  },

  // The choice stands in the address, so that it can be kept, and "back" works.
  go(change) {
    const next = { ...this.chosen, ...change };
    const said = new URLSearchParams();
    for (const [key, value] of Object.entries(next)) if (value !== null && value !== "" && value !== 0 || (key !== "p" && value === 0)) said.set(key, value);
    location.hash = said.toString();
  },

  read() {
    const said = new URLSearchParams(location.hash.slice(1));
    const whole = (text) => (/^\d+$/.test(text || "") ? Number(text) : null);
    const c = said.get("c");
    this.chosen = { c: c === "none" || c === "bad" ? c : whole(c), s: whole(said.get("s")), q: said.get("q") || "", p: whole(said.get("p")) || 0 };
    if (get("search").value !== this.chosen.q) get("search").value = this.chosen.q;
    if (this.chosen.q && !this.names) return this.load("names.js", () => this.show());
    this.show();
  },

  named(names) { this.names = names.map((name) => name.toLowerCase()); },

  filtered() {
    const { c, s, q } = this.chosen, wanted = q.toLowerCase(), found = [];
    const { labels, of } = this.all;
    for (let k = 0; k < of.length; k++) {
      if (s !== null && of[k] !== s) continue;
      if (c === "none" ? labels[k].length : c === "bad" ? !this.bad.has(k) : c !== null && !labels[k].includes(c)) continue;
      if (wanted && this.names && !this.names[k].includes(wanted)) continue;
      found.push(k);
    }
    return found;
  },

  show() {
    const found = this.filtered();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    this.chosen.p = Math.min(this.chosen.p, pages - 1);
    const page = found.slice(this.chosen.p * PAGE, (this.chosen.p + 1) * PAGE);
    get("shown").textContent = found.length === this.all.of.length ? `all ${number(found.length)} images` : `${number(found.length)} of ${number(this.all.of.length)} images`;
    get("place").textContent = `page ${number(this.chosen.p + 1)} of ${number(pages)}`;
    get("before").disabled = this.chosen.p === 0;
    get("after").disabled = this.chosen.p >= pages - 1;
    get("nothing").hidden = found.length > 0;
    for (const button of document.querySelectorAll("[data-which]")) button.setAttribute("aria-pressed", button.dataset.which === String(this.chosen.c));
    for (const button of document.querySelectorAll("[data-split]")) button.setAttribute("aria-pressed", button.dataset.split === String(this.chosen.s));
    const grid = get("grid");
    grid.replaceChildren();
    for (const k of page) {
      const card = make("div", undefined, "card");
      card.append(make("div", "", "frame"));
      grid.append(card);
      this.known(k, (item) => this.fill(card, item, k));
    }
  },

  // `then` is told what is known of image k, at once or when its portion has come.
  known(k, then) {
    const portion = Math.floor(k / this.all.portion), within = k % this.all.portion;
    const there = this.portions.get(portion);
    if (there) return then(there[within]);
    if (!this.waiting.has(portion)) {
      this.waiting.set(portion, []);
      this.load(`items/${portion}.js`, () => {});
    }
    this.waiting.get(portion).push(() => then(this.portions.get(portion)[within]));
  },

  put(portion, rows) {
    this.portions.set(portion, rows);
    if (this.portions.size > 40) this.portions.delete(this.portions.keys().next().value);
    const waiting = this.waiting.get(portion) || [];
    this.waiting.delete(portion);
    for (const then of waiting) then();
  },

  load(file, then) {
    const script = document.createElement("script");
    script.src = file;
    script.addEventListener("load", () => { script.remove(); then(); });
    script.addEventListener("error", () => { get("shown").textContent = `${file} is missing: make the view anew`; });
    document.head.append(script);
  },

  labels(k) { return this.all.labels[k].map((label) => this.all.classes[label]); },

  fill(card, [name, width, height, small, address, problem, marks], k) {
    const frame = make("button", undefined, "frame");
    frame.type = "button";
    if (problem) {
      frame.disabled = true;
      frame.append(make("p", problem));
    } else {
      const image = make("img");
      image.src = small;
      image.alt = name;
      image.loading = "lazy";
      frame.append(image);
      if (marks.length) { frame.append(this.drawn(width, height, marks)); get("marks-switch").hidden = false; }
      frame.addEventListener("click", () => this.enlarge(k));
    }
    const labels = this.labels(k);
    const counts = marks.length ? ` (${marks.length})` : "";
    const label = make("p", labels.length ? labels.join(", ") + counts : "no label", labels.length ? "label" : "label none");
    const file = make("p", name.split("/").pop(), "file");
    file.title = name;
    card.replaceChildren(frame, label, file);
  },

  drawn(width, height, marks) {
    const make = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
    const svg = make("svg");
    svg.setAttribute("class", "marks");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-hidden", "true");
    for (const [label, x1, y1, x2, y2, hint] of marks) {
      const rect = make("rect");
      for (const [key, value] of Object.entries({ x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) })) rect.setAttribute(key, value);
      rect.style.setProperty("--hue", hue(label));
      if (hint) rect.setAttribute("class", "hint");
      svg.append(rect);
    }
    return svg;
  },

  enlarge(k) {
    this.known(k, ([name, width, height, small, address, , marks]) => {
      const fit = make("div", undefined, "fit"), image = make("img");
      image.width = width;
      image.height = height;
      image.style.width = "auto";
      image.style.height = "auto";
      image.style.minWidth = `min(92vw, ${Math.min(width, 640)}px)`;
      image.alt = name;
      image.addEventListener("error", () => { if (image.getAttribute("src") !== small) image.src = small; });
      image.src = address || small;
      fit.append(image);
      if (marks.length) fit.append(this.drawn(width, height, marks));
      for (const [label, x1, y1] of marks.slice(0, 200)) {
        const tag = make("span", typeof label === "number" ? this.all.classes[label] : label, "tag");
        tag.style.left = `${(100 * x1) / width}%`;
        tag.style.top = `${(100 * y1) / height}%`;
        if (y1 < 0.06 * height) tag.classList.add("inside");
        tag.style.setProperty("--hue", hue(label));
        fit.append(tag);
      }
      get("large").querySelector(".whole").replaceChildren(fit);
      const split = this.all.splits[this.all.of[k]];
      const said = [name, `${width} × ${height}`, this.labels(k).join(", ") || "no label", split || "in no split"];
      get("large").querySelector(".told").textContent = said.join(" · ");
      this.large = k;
      if (!get("large").open) get("large").showModal();
    });
  },

  step(by) {
    if (!get("large").open) return this.turn(by);
    const found = this.filtered(), next = found[found.indexOf(this.large) + by];
    if (next !== undefined && !this.bad.has(next)) this.enlarge(next);
  },

  turn(by) {
    const last = Math.ceil(this.filtered().length / PAGE) - 1, next = this.chosen.p + by;
    if (next >= 0 && next <= last) { this.go({ p: next }); scrollTo(0, 0); }
  },
};
window.view = view;
let typed;
get("search").addEventListener("input", (event) => {
  clearTimeout(typed);
  typed = setTimeout(() => view.go({ q: event.target.value.trim(), p: 0 }), 200);
});
get("before").addEventListener("click", () => view.turn(-1));
get("after").addEventListener("click", () => view.turn(1));
get("marks").addEventListener("change", (event) => document.body.classList.toggle("no-marks", !event.target.checked));
get("large").addEventListener("click", (event) => { if (event.target === get("large")) get("large").close(); });
addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft") view.step(-1);
  if (event.key === "ArrowRight") view.step(1);
});
