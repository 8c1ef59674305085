/* What all pictures are drawn with: elements, figures, axes, and when it is done. */
const at = id => document.getElementById(id);
const data = JSON.parse(at("data").textContent);

/* Rows of what came by columns: of one that repeats each value once, and at which of them each row is. */
function rowsOf({rows, columns}) {
  const cells = Object.entries(columns).map(([name, {all, of, at}]) => [name, all ? i => all[i] : i => of[at[i]]]);
  return Array.from({length: rows}, (_, i) => Object.fromEntries(cells.map(([name, value]) => [name, value(i)])));
}
data.stages = rowsOf(data.stages).map(({series, curves, ...stage}) => ({...stage, curves: Object.fromEntries(series.map((name, i) => [name, curves[i]]))}));
if (data.told.cost) data.told.cost.stages = rowsOf(data.told.cost.stages).map(({at, ...own}) => {
  const {key, path, budget, seed, role, seconds} = data.stages[at];
  return {key, path, budget, seed, role, seconds, ...own};
});

const arrow = path => path.join(" > ");
const same = (a, b) => a.length === b.length && a.every((name, i) => name === b[i]);
const isBest = path => data.best.some(one => same(one, path));
const places = new Map(data.stages.map((stage, i) => [stage.key, i]));
const narrow = () => document.documentElement.clientWidth < 640;

/* The stages that led to one, and itself as the last, as far as they are known. */
function lineage(key) {
  const found = [];
  for (let i = places.get(key); i !== undefined; i = places.get(data.stages[i].teacher)) found.unshift(i);
  return found;
}

/* An SVG element; a picture shrinks as a whole where it is printed. */
function draw(tag, parent, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  if (tag === "svg" && attributes.width) node.setAttribute("viewBox", "0 0 " + attributes.width + " " + attributes.height);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

/* An HTML element. What it holds is set as text, and so stays text. */
function make(tag, attributes, ...holds) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...holds);
  return node;
}

function push(text, attributes, act) {
  const button = make("button", {type: "button", ...attributes}, text);
  button.addEventListener("click", act);
  return button;
}

function short(text, width) {
  const room = Math.max(3, Math.floor(width / 7));
  return text.length > room ? text.slice(0, room - 1) + "\u2026" : text;
}

function clock(seconds) {
  if (seconds < 59.5) return (seconds >= 9.95 || !seconds ? seconds.toFixed(0) : seconds.toFixed(1)) + " s";
  const all = Math.round(seconds), two = n => String(n).padStart(2, "0");
  const hours = Math.floor(all / 3600), minutes = Math.floor(all / 60) % 60;
  return hours ? hours + ":" + two(minutes) + ":" + two(all % 60) : minutes + ":" + two(all % 60);
}

/* 11.6 M, 38 k, 512 */
function large(value) {
  const [size, unit] = [[1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""]].find(([size]) => value >= size) || [1, ""];
  return Number((value / size).toPrecision(3)) + unit;
}

function figure(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(2) : value.toFixed(size < 10 ? 3 : 1);
}

/* Round numbers between two values; steps of time are those of a clock. */
function ticks(low, high, wanted, time) {
  const rough = (high - low) / wanted || 1, size = 10 ** Math.floor(Math.log10(rough));
  const clocks = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const step = (time && clocks.find(s => s >= rough)) || [1, 2, 5, 10].map(s => s * size).find(s => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

/* Axes of a chart in an svg: -> functions from values to pixels. */
function axes(svg, box, x, y) {
  const scale = (range, from, to) => value => from + (value - range[0]) / (range[1] - range[0] || 1) * (to - from);
  const sx = scale(x.range, box.left, box.width - box.right), sy = scale(y.range, box.height - box.bottom, box.top);
  const ys = ticks(y.range[0], y.range[1], box.height / 60);
  const digits = Math.min(4, Math.max(0, -Math.floor(Math.log10((ys[1] - ys[0]) || 1) + 1e-9)));
  for (const value of ys) {
    draw("line", svg, {class: "axis", x1: box.left, x2: box.width - box.right, y1: sy(value), y2: sy(value)});
    draw("text", svg, {x: box.left - 8, y: sy(value) + 4, "text-anchor": "end"}, value.toFixed(digits));
  }
  for (const value of x.ticks) {
    draw("text", svg, {x: sx(value), y: box.height - box.bottom + 18, "text-anchor": "middle"}, x.format(value));
  }
  return [sx, sy];
}

function tip(holder, text, x, y) {
  let box = holder.querySelector(".tip");
  if (!box) { box = document.createElement("div"); box.className = "tip"; holder.append(box); }
  box.hidden = !text;
  box.textContent = text || "";
  if (text) {
    const room = holder.clientWidth - box.offsetWidth;
    box.style.left = Math.max(0, Math.min(room, x + 14 > room ? x - box.offsetWidth - 14 : x + 14)) + "px";
    box.style.top = Math.max(0, y) + "px";
  }
}

/* Something of a picture that tells its values when it is pointed at or has the focus. */
function telling(node, holder, text, x, y) {
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => tip(holder, text, x, y));
  for (const event of ["pointerleave", "blur"]) node.addEventListener(event, () => tip(holder, ""));
}

/* Pictures are drawn when they come near the window, and again when its width changes; all of them before printing. */
const pictures = new Map();
const nearing = new IntersectionObserver(seen => seen.filter(one => one.isIntersecting).forEach(one => show(one.target)), {rootMargin: "300px"});

function picture(holder, redraw) {
  if (!holder) return;
  pictures.set(holder, {redraw, shown: false});
  holder.classList.add("unseen");
  nearing.observe(holder);
}

function show(holder) {
  const own = pictures.get(holder);
  if (own.shown || !holder.clientWidth) return;  // a window that has no size yet will have one
  own.shown = true;
  nearing.unobserve(holder);
  holder.classList.remove("unseen");
  own.redraw();
}

/* What a picture shows has changed; one that was never near is drawn once it is. */
function again(holder) {
  const own = pictures.get(holder);
  if (own && own.shown && holder.clientWidth) own.redraw();
}

let wide = innerWidth;
addEventListener("resize", () => {
  if (wide === innerWidth) return;
  wide = innerWidth;
  for (const holder of pictures.keys()) again(holder);
});
addEventListener("beforeprint", () => [...pictures.keys()].forEach(show));
