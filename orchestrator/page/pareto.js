/* Cost against score, with Pareto's front. */
/* What a score is set against: how its figures read, and what the axis is called. */
const AXES = {
  seconds: {name: "training time", format: clock, time: true},
  latency_ms: {name: "milliseconds an image", format: value => Number(value.toPrecision(3)) + " ms"},
  parameters: {name: "parameters", format: large},
};

function drawCost() {
  const axis = at("against") ? at("against").value : "seconds", against = AXES[axis];
  const holder = at("cost"), points = data.points.filter(p => p[axis] !== null);
  if (!points.length) return holder.replaceChildren(document.createTextNode("Not measured."));
  const box = {left: 48, right: 12, top: 16, bottom: 44, width: holder.clientWidth, height: narrow() ? 300 : 360};
  const svg = draw("svg", null, {width: box.width, height: box.height});
  const scores = points.map(p => p.score), low = Math.min(...scores), high = Math.max(...scores), pad = (high - low) * 0.12 || 0.01;
  const most = Math.max(...points.map(p => p[axis])) * 1.05 || 1;
  const [sx, sy] = axes(svg, box, {range: [0, most], ticks: ticks(0, most, box.width / 110, against.time), format: against.format}, {range: [low - pad, high + pad]});
  draw("text", svg, {x: box.width - box.right, y: box.height - 6, "text-anchor": "end"}, against.name);
  const front = points.filter(p => p.front.includes(axis)).sort((a, b) => a[axis] - b[axis]);
  const steps = front.map((p, i) => (i ? "H" + sx(p[axis]) + " V" : "M" + sx(p[axis]) + " ") + sy(p.score));
  draw("path", svg, {d: steps.join(" "), fill: "none", stroke: "var(--rest)", id: "front"});
  const taken = points.map(p => [sx(p[axis]) - 5, sy(p.score) - 5, 10, 10]);
  const clash = b => taken.some(t => b[0] < t[0] + t[2] && t[0] < b[0] + b[2] && b[1] < t[1] + t[3] && t[1] < b[1] + b[3]);
  const rank = p => isBest(p.path) ? 0 : p.path.length <= 2 ? 1 : front.includes(p) ? 2 : 3;
  for (const p of [...points].sort((a, b) => rank(b) - rank(a))) {
    const best = isBest(p.path), alone = p.path.length === 1, label = p.name;
    const dot = draw("circle", svg, {
      cx: sx(p[axis]), cy: sy(p.score), r: best ? 6 : 4.5, tabindex: rank(p) < 3 ? 0 : -1, role: "img", "aria-label": label + " " + figure(p.score) + " " + against.format(p[axis]),
      fill: best ? "var(--best)" : alone ? "var(--page)" : "var(--rest)", stroke: best ? "var(--best)" : alone ? "var(--ink)" : "var(--page)", "stroke-width": alone ? 2 : 1,
    });
    const spread = p.spread === null ? "" : " \u00b1 " + figure(p.spread);
    const show = () => tip(holder, label + "\n" + data.metric + " " + figure(p.score) + spread + "   " + against.format(p[axis]), sx(p[axis]), sy(p.score) - 52);
    for (const event of ["pointerenter", "focus"]) dot.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) dot.addEventListener(event, () => tip(holder, ""));
  }
  holder.replaceChildren(svg);
  for (const p of [...points].sort((a, b) => rank(a) - rank(b)).filter(p => rank(p) < 3 || points.length <= 16)) {
    const label = p.name, px = sx(p[axis]), py = sy(p.score);
    const text = draw("text", svg, {class: "halo " + (rank(p) === 0 ? "is-best" : "")}, label), long = text.getComputedTextLength();
    const places = [[px + 10, py - 8], [px - 10 - long, py - 8], ...[py - 25, py + 9].map(top => [Math.max(box.left + 1, Math.min(box.width - long - 1, px - long / 2)), top])];
    const free = places.find(([left, top]) => left > box.left && left + long < box.width && top > 0 && top < box.height - box.bottom && !clash([left, top, long, 16]));
    if (!free) { text.remove(); continue; }
    taken.push([free[0], free[1], long, 16]);
    text.setAttribute("x", free[0]);
    text.setAttribute("y", free[1] + 12);
  }
}
