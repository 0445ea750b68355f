// The picture on its canvas, with what was found drawn in. The canvas has the pixels that are shown,
// however many the picture has.

const MOST_RATIO = 2;

/** A colour for each name, the same every time, as far apart as names allow. */
export function colourOf(name) {
  let hash = 2166136261;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return `oklch(80% 0.17 ${((hash >>> 0) * 137.508) % 360})`; // light enough for dark letters on it
}

export class Stage {
  constructor(place, canvas, backdrop) {
    this.place = place;
    this.canvas = canvas;
    this.backdrop = backdrop;
    this.image = null; // what the browser can show of the picture
    this.size = null; // { width, height } of the upright original
    this.boxes = [];
    this.chosen = -1;
    this.overlay = null;
    this.opacity = 0.65;
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /** Show a picture; false where the browser cannot (the server may read it all the same). */
  async show(picture) {
    const address = URL.createObjectURL(picture);
    const image = new Image();
    image.src = address;
    let shown = true;
    try {
      await image.decode();
    } catch {
      shown = false;
    }
    URL.revokeObjectURL(address);
    return shown ? image : null;
  }

  put(image) {
    this.image = image;
    this.size = image && { width: image.naturalWidth, height: image.naturalHeight };
    this.boxes = [];
    this.overlay = null;
    this.chosen = -1;
    const pen = this.backdrop.getContext("2d");
    pen.clearRect(0, 0, this.backdrop.width, this.backdrop.height);
    if (image) pen.drawImage(image, 0, 0, this.backdrop.width, this.backdrop.height);
    this.draw();
  }

  /** Space for a picture of that size: as wide as there is room, no higher than the window. */
  #fit() {
    const room = this.place.clientWidth;
    // Where answers lie below it, they are to show, too.
    const share = matchMedia("(max-width: 860px)").matches ? 0.5 : 0.7;
    const most = Math.max(240, Math.min(window.innerHeight * share, 720));
    const { width, height } = this.size;
    const scale = Math.min(room / width, most / height);
    return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  }

  draw() {
    const { canvas } = this;
    canvas.hidden = !this.size;
    if (!this.size) return;
    const [width, height] = this.#fit();
    const ratio = Math.min(window.devicePixelRatio || 1, MOST_RATIO);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.imageSmoothingQuality = "high";
    if (this.image) pen.drawImage(this.image, 0, 0, width, height);
    else {
      pen.fillStyle = "#4b5162";
      pen.fillRect(0, 0, width, height);
      pen.fillStyle = "#fff";
      pen.font = "500 15px ui-sans-serif, system-ui, sans-serif";
      pen.textAlign = "center";
      pen.fillText("Your browser cannot show this kind of picture, but the model can read it.", width / 2, height / 2, width - 16);
      pen.textAlign = "start";
    }
    if (this.overlay) {
      pen.globalAlpha = this.opacity;
      pen.drawImage(this.overlay, 0, 0, width, height);
      pen.globalAlpha = 1;
    }
    this.#drawBoxes(pen, width, height);
  }

  #drawBoxes(pen, width, height) {
    const across = width / this.size.width;
    const down = height / this.size.height;
    const order = this.boxes.map((box, k) => k).sort((a, b) => (b === this.chosen) - (a === this.chosen));
    if (this.chosen >= 0) {
      pen.fillStyle = "#0007";
      pen.fillRect(0, 0, width, height);
      const [x1, y1, x2, y2] = this.boxes[this.chosen].xyxy;
      if (this.image) {
        const sx = this.image.naturalWidth / this.size.width;
        const sy = this.image.naturalHeight / this.size.height;
        pen.drawImage(this.image, x1 * sx, y1 * sy, Math.max(1, (x2 - x1) * sx), Math.max(1, (y2 - y1) * sy),
          x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down);
      }
    }
    // The surest last, so that their frames lie on top; their labels have the first choice of place.
    const faint = (k) => this.chosen >= 0 && k !== this.chosen;
    for (const k of order.toReversed()) this.#drawFrame(pen, this.boxes[k], across, down, faint(k));
    const taken = [];
    for (const k of order) {
      if (!faint(k)) this.#drawLabel(pen, this.boxes[k], across, down, width, height, taken);
    }
  }

  #drawFrame(pen, box, across, down, faint) {
    const [x, y] = [box.xyxy[0] * across, box.xyxy[1] * down];
    const [w, h] = [box.xyxy[2] * across - x, box.xyxy[3] * down - y];
    const colour = colourOf(box.name);
    pen.globalAlpha = faint ? 0.25 : 1;
    pen.lineJoin = "round";
    for (const [style, thick] of [["#000a", 5], [colour, 2.75]]) {
      pen.strokeStyle = style;
      pen.lineWidth = thick;
      pen.beginPath();
      pen.roundRect(x + 1.5, y + 1.5, Math.max(w - 3, 1), Math.max(h - 3, 1), Math.min(8, w / 4, h / 4));
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  #drawLabel(pen, box, across, down, width, height, taken) {
    const [x, y] = [box.xyxy[0] * across, box.xyxy[1] * down];
    const bottom = box.xyxy[3] * down;
    pen.font = "600 13px ui-sans-serif, system-ui, sans-serif";
    const most = Math.max(60, width - x - 8);
    let text = `${box.name} ${Math.round(100 * box.score)} %`;
    while (pen.measureText(text).width + 14 > most && text.length > 4) text = `${text.slice(0, -2)}…`;
    const [long, high] = [pen.measureText(text).width + 14, 22];
    const left = Math.max(0, Math.min(x, width - long));
    // Above the frame, below it, or inside: the first place that is free.
    const places = [y - high, bottom, y + 3, bottom - high - 3].filter((top) => top >= 0 && top + high <= height);
    const free = (top) => taken.every(([l, t, r]) => left >= r || left + long <= l || top >= t + high || top + high <= t);
    const top = places.find(free) ?? places[0] ?? 0;
    taken.push([left, top, left + long]);
    pen.fillStyle = colourOf(box.name);
    pen.beginPath();
    pen.roundRect(left, top, long, high, 7);
    pen.fill();
    pen.fillStyle = "#10121a";
    pen.textBaseline = "middle";
    pen.fillText(text, left + 7, top + 11.5);
  }

  /** The smallest box at a place of the canvas, or -1. */
  at(x, y) {
    if (!this.size) return -1;
    const sx = this.size.width / this.canvas.clientWidth;
    const sy = this.size.height / this.canvas.clientHeight;
    let [found, least] = [-1, Infinity];
    this.boxes.forEach(({ xyxy: [x1, y1, x2, y2] }, k) => {
      const area = (x2 - x1) * (y2 - y1);
      const inside = x * sx >= x1 && x * sx <= x2 && y * sy >= y1 && y * sy <= y2;
      if (inside && area < least) [found, least] = [k, area];
    });
    return found;
  }
}
