/* Curves: of one stage, or of several side by side. */
const MOST = 8, slots = new Array(MOST).fill(null);
const severalSeeds = new Set(data.stages.map(stage => stage.seed)).size > 1;
const named = s => arrow(s.path) + (s.role === "alone" ? " alone" : "") + (s.setting ? ", " + s.setting : "") + (severalSeeds ? ", seed " + s.seed : "") + (s.budget === 1 ? "" : " @" + s.budget);
const look = slot => ({stroke: "var(--c" + slot + ")", "stroke-dasharray": slot < 4 ? "none" : "6 3"});
const score = "val/" + data.metric;

/* One series of these stages, each drawn as its slot says. */
function chart(grid, name, lines, high) {
  const holder = make("figure", {}, make("figcaption", {}, name));
  lines = lines.filter(({stage}) => stage.curves[name]);
  const values = lines.flatMap(({stage}) => stage.curves[name]).filter(value => value !== null);
  if (!values.length) return;
  grid.append(holder);
  const box = {left: 48, right: 12, top: 14, bottom: 28, width: holder.clientWidth, height: high};
  const svg = draw("svg", null, {width: box.width, height: box.height, tabindex: 0, role: "img", "aria-label": name + " by epoch; the arrow keys read values"});
  const low = Math.min(...values), top = Math.max(...values), last = Math.max(2, ...lines.flatMap(({stage}) => stage.epoch)), pad = (top - low) * 0.05 || 0.01;
  const whole = ticks(1, last, Math.min(last - 1, box.width / 60)).filter(value => Number.isInteger(value) && value > 0);
  const [sx, sy] = axes(svg, box, {range: [1, last], ticks: whole[0] > 1 ? [1, ...whole] : whole, format: String}, {range: [low - pad, top + pad]});
  const mark = draw("line", svg, {y1: box.top, y2: box.height - box.bottom, stroke: "var(--rest)", visibility: "hidden"});
  for (const {stage, slot} of lines) {
    const known = stage.epoch.map((epoch, i) => [epoch, stage.curves[name][i]]).filter(([, value]) => value !== null);
    if (known.length === 1) draw("circle", svg, {cx: sx(known[0][0]), cy: sy(known[0][1]), r: 3, fill: look(slot).stroke});
    else draw("polyline", svg, {class: "curve", points: known.map(([epoch, value]) => sx(epoch).toFixed(1) + "," + sy(value).toFixed(1)).join(" "), ...look(slot)});
  }
  const epochs = [...new Set(lines.flatMap(({stage}) => stage.epoch))].sort((a, b) => a - b);
  let now = epochs.length - 1;
  const read = () => {
    const epoch = epochs[now], many = lines.length > 1;
    mark.setAttribute("visibility", "visible");
    for (const end of ["x1", "x2"]) mark.setAttribute(end, sx(epoch));
    const found = lines.map(({stage}) => [stage.curves[name][stage.epoch.indexOf(epoch)], named(stage)]).filter(([value]) => value !== null && value !== undefined);
    tip(holder, ["epoch " + epoch, ...found.sort((a, b) => b[0] - a[0]).map(([value, label]) => figure(value) + (many ? "  " + label : ""))].join("\n"), sx(epoch), high < 200 || narrow() ? high + 22 : box.top + 22);
  };
  const hide = () => { mark.setAttribute("visibility", "hidden"); tip(holder, ""); };
  const follow = event => {
    const part = (event.clientX - svg.getBoundingClientRect().left - box.left) / (box.width - box.left - box.right), epoch = 1 + part * (last - 1);
    now = epochs.reduce((best, value, i) => Math.abs(value - epoch) < Math.abs(epochs[best] - epoch) ? i : best, 0);
    read();
  };
  for (const event of ["pointermove", "pointerdown"]) svg.addEventListener(event, follow);
  for (const event of ["pointerleave", "blur"]) svg.addEventListener(event, hide);
  svg.addEventListener("focus", read);
  svg.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    now = Math.max(0, Math.min(epochs.length - 1, now + step));
    read();
  });
  holder.append(svg);
}

/* The score, large, and the losses by their names; `whole`: what else was measured, too. */
function charts(grid, lines, whole) {
  grid.replaceChildren();
  const names = [...new Set(lines.flatMap(({stage}) => Object.keys(stage.curves)))].sort();
  chart(grid, score, lines, narrow() ? 220 : 280);
  for (const name of names.filter(name => name.startsWith("train/"))) chart(grid, name, lines, 170);
  for (const name of names.filter(name => whole && name.startsWith("val/") && name !== score)) chart(grid, name, lines, 170);
}

/* The same as rows: an epoch of a stage each. */
function epochRows(stages) {
  const names = [...new Set(stages.flatMap(stage => Object.keys(stage.curves)))].sort();
  return stages.flatMap(stage => stage.epoch.map((epoch, i) => ({
    stage: named(stage), key: stage.key, seed: stage.seed, epoch,
    ...Object.fromEntries(names.map(name => [name, stage.curves[name] ? stage.curves[name][i] : null])),
  })));
}

function add(index) {
  if (!data.stages[index].epoch.length || slots.includes(index)) return;
  if (!slots.includes(null)) slots[MOST - 1] = null;
  slots[slots.indexOf(null)] = index;
}

const chosen = () => slots.flatMap((index, slot) => index === null ? [] : [{stage: data.stages[index], slot}]);

function drawChosen() {
  charts(at("curves"), chosen(), false);
  at("chips").replaceChildren(...chosen().map(({stage, slot}) => {
    const swatch = draw("svg", null, {viewBox: "0 0 22 10", style: "display: inline-block", "aria-hidden": "true"});
    draw("line", swatch, {x1: 0, x2: 22, y1: 5, y2: 5, "stroke-width": 2.5, ...look(slot)});
    const chip = push("", {"aria-label": "Take away " + named(stage)}, () => { slots[slot] = null; drawChosen(); });
    chip.append(swatch, named(stage) + " \u00d7");
    return chip;
  }));
}

/* The stages that led to what is told of a path, of its first seed; of one of which nothing is told, to its first. */
function choosePath(path) {
  slots.fill(null);
  const told = data.told.answers.flatMap(one => [...one.ranking, one.baseline]).find(one => one && same(one.path, path));
  const last = told ? told.keys[0] : (data.stages.find(stage => same(stage.path, path)) || {}).key;
  lineage(last).forEach(add);
}
