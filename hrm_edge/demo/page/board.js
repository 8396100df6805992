// The board and the replay of a thought: every step's belief in every digit of every cell.
const SIDE = 9, CELLS = 81, RECORD = 2 + CELLS * SIDE; // a record: view, step of the view, beliefs in 1/255
const SURE = 0.6; // from here on a cell shows one digit, below it all it considers

const peers = Array.from({ length: CELLS }, (_, cell) => {
  const row = Math.floor(cell / SIDE), column = cell % SIDE;
  return [...Array(CELLS).keys()].filter((other) => {
    const r = Math.floor(other / SIDE), c = other % SIDE;
    const box = Math.floor(r / 3) === Math.floor(row / 3) && Math.floor(c / 3) === Math.floor(column / 3);
    return other !== cell && (r === row || c === column || box);
  });
});

export class Thought {
  constructor(number, givens) {
    this.number = number;
    this.givens = givens;
    this.bytes = new Uint8Array(0);
  }
  get steps() { return Math.floor(this.bytes.length / RECORD); }
  append(buffer) {
    const whole = new Uint8Array(this.bytes.length + buffer.byteLength);
    whole.set(this.bytes);
    whole.set(new Uint8Array(buffer), this.bytes.length);
    this.bytes = whole;
  }
  view(step) { return this.bytes[step * RECORD]; }
  belief(step, cell, digit) { return this.bytes[step * RECORD + 2 + cell * SIDE + digit] / 255; }
  digits(step) { // [81] likeliest digits 1-9, givens as read
    return this.givens.map((given, cell) => {
      if (given) return given;
      let best = 0;
      for (let digit = 1; digit < SIDE; digit++) if (this.belief(step, cell, digit) > this.belief(step, cell, best)) best = digit;
      return best + 1;
    });
  }
  certainty(step) { // mean belief in the likeliest digit of the blanks
    let sum = 0, count = 0;
    this.digits(step).forEach((digit, cell) => {
      if (!this.givens[cell]) { sum += this.belief(step, cell, digit - 1); count++; }
    });
    return count ? sum / count : 1;
  }
}

const clashes = (digits) => digits.map((digit, cell) => digit > 0 && peers[cell].some((other) => digits[other] === digit));

export class Board {
  constructor(root) {
    this.cells = [];
    for (let row = 0; row < SIDE; row++) {
      const line = root.appendChild(element("div", "line", { role: "row" }));
      for (let column = 0; column < SIDE; column++) {
        const cell = line.appendChild(element("div", "cell", { role: "cell" }));
        const big = cell.appendChild(element("span", "big"));
        const small = cell.appendChild(element("span", "small", { "aria-hidden": "true" }));
        const candidates = Array.from({ length: SIDE }, (_, n) => {
          const one = small.appendChild(element("span"));
          one.textContent = n + 1;
          one.style.opacity = 0;
          return one;
        });
        this.cells.push({ cell, big, candidates });
      }
    }
    this.before = null;
    this.doubtful = new Set();
  }
  // cells of the reading that a person should look at
  doubt(cells) { this.doubtful = new Set(cells); }
  // givens [81] with 0 for blanks, or null; answer [81] only where it is proven
  show(givens, thought, step, answer) {
    const believed = !answer && thought && thought.steps ? thought.digits(step) : null;
    const bad = believed ? clashes(believed) : null;
    this.cells.forEach(({ cell, big, candidates }, index) => {
      const given = givens ? givens[index] : 0;
      const digit = given || (answer ? answer[index] : believed ? believed[index] : 0);
      const belief = believed && !given ? thought.belief(step, index, digit - 1) : 1;
      const open = Boolean(believed) && !given && belief < SURE;
      const kind = given ? "given" : answer ? "proven" : bad && bad[index] && !open ? "clash" : "guess";
      const turned = this.before && believed && !given && this.before[index] && this.before[index] !== digit && !open;
      cell.className = `cell ${kind}${open ? " open" : ""}${turned ? " turned" : ""}${this.doubtful.has(index) ? " doubtful" : ""}`;
      big.textContent = digit || "";
      big.style.opacity = kind === "guess" ? 0.25 + 0.75 * belief : 1;
      if (open) candidates.forEach((one, n) => { one.style.opacity = Math.min(1, 1.6 * Math.sqrt(thought.belief(step, index, n)) - 0.15); });
      const said = !digit ? "blank" : given ? `${digit}, read` : answer ? `${digit}, proven` : `${digit}, believed ${Math.round(100 * belief)}%`;
      cell.setAttribute("aria-label", `row ${Math.floor(index / SIDE) + 1} column ${index % SIDE + 1}: ${said}${this.doubtful.has(index) ? ", in doubt" : ""}`);
    });
    this.before = believed;
  }
}

// a bar a step: how sure the model is of the blanks; the views of the puzzle alternate in tone
export function drawBars(svg, thought, step, proven) {
  const count = thought.steps, wide = Math.min(60, 880 / count); // centred where the slider's thumb stands
  svg.setAttribute("viewBox", "0 0 1000 44");
  while (svg.children.length > count) svg.lastChild.remove();
  for (let n = 0; n < count; n++) {
    const bar = svg.children[n] || svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
    const high = 3 + 41 * Math.max(0, (thought.certainty(n) - 0.2) / 0.8);
    const values = { x: (count > 1 ? 16 + (968 * n) / (count - 1) : 500) - wide / 2, width: wide, y: 44 - high, height: high, rx: 2 };
    for (const [name, value] of Object.entries(values)) bar.setAttribute(name, value);
    bar.setAttribute("class", `${thought.view(n) % 2 ? "odd" : ""} ${n === step ? "now" : ""} ${proven && n === count - 1 ? "done" : ""}`);
  }
}

function element(tag, name = "", attributes = {}) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
