/* A race: score against epoch, epochs by their logarithm, a line for each that raced. */
function drawRungs() {
  const holder = at("rungs"), race = data.rungs[at("race") ? Number(at("race").value) : 0], ends = race.rungs.map(rung => rung.epoch), last = ends[ends.length - 1];
  const box = {left: 48, right: 16, top: 30, bottom: 44, width: holder.clientWidth, height: narrow() ? 280 : 340};
  const svg = draw("svg", null, {width: box.width, height: box.height, role: "img", "aria-label": "Rungs of " + race.name});
  const lines = race.lines.filter(line => line.points.length), points = lines.flatMap(line => line.points);
  if (!points.length) { holder.replaceChildren(); return; }
  const scores = points.map(([, score]) => score), low = Math.min(...scores), high = Math.max(...scores), pad = (high - low) * 0.06 || 0.01;
  const first = Math.min(ends[0], ...points.map(([epoch]) => epoch)), range = [Math.log(first), Math.log(Math.max(last, first * 1.5))];
  const [sx, sy] = axes(svg, box, {range, ticks: [], format: String}, {range: [low - pad, high + pad]});
  const x = epoch => sx(Math.log(epoch));
  draw("text", svg, {x: box.width - box.right, y: box.height - 6, "text-anchor": "end"}, "epochs");
  let free = [-Infinity, -Infinity];
  race.rungs.forEach(rung => {
    const px = x(rung.epoch), end = rung.epoch === last;
    draw("line", svg, {x1: px, x2: px, y1: box.top, y2: box.height - box.bottom, stroke: "var(--rest)", "stroke-width": 1, "stroke-dasharray": end ? "none" : "3 3"});
    const anchor = px > box.width - 40 ? "end" : "middle";
    [[box.height - box.bottom + 18, String(rung.epoch), ""], [box.top - 10, String(rung.reached), "strong"]].forEach(([y, text, kind], i) => {
      const from = anchor === "end" ? px - 7 * text.length : px - 3.5 * text.length;
      if (from < free[i] + 6) return;
      draw("text", svg, {x: px, y, "text-anchor": anchor, class: kind}, text);
      free[i] = from + 7 * text.length;
    });
  });
  const rank = line => line.won ? 2 : line.state === "done" ? 1 : 0;
  for (const line of [...lines].sort((a, b) => rank(a) - rank(b))) {
    const bad = line.state === "failed" || line.state === "lost", colour = line.won ? "var(--best)" : bad ? "var(--bad)" : rank(line) ? "var(--ink)" : "var(--rest)";
    const [epoch, score] = line.points[line.points.length - 1], px = x(epoch), py = sy(score);
    const told = [line.name, data.metric + " " + figure(score) + " after epoch " + epoch + (line.won ? ", the winner" : line.state === "pruned" ? ", given up" : line.state === "done" ? "" : ", " + line.state)].join("\n");
    const group = draw("g", svg, {tabindex: 0, role: "img", "aria-label": told});
    const path = line.points.map(([e, s]) => x(e).toFixed(1) + "," + sy(s).toFixed(1)).join(" ");
    if (line.points.length > 1) {
      const drawn = draw("polyline", group, {class: "curve", points: path, stroke: colour, "stroke-opacity": rank(line) ? 1 : 0.75});
      drawn.style.strokeWidth = line.won ? "3px" : "1.25px";
      draw("polyline", group, {points: path, fill: "none", stroke: "transparent", "stroke-width": 10});
    }
    draw("circle", group, {cx: px, cy: py, r: line.won ? 5 : 3.5, fill: rank(line) ? colour : "var(--page)", stroke: colour, "stroke-width": 1.5});
    for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => tip(holder, told, px, Math.min(py + 12, box.height - 60)));
    for (const event of ["pointerleave", "blur"]) group.addEventListener(event, () => tip(holder, ""));
  }
  const won = lines.find(line => line.won);
  if (won) {
    const text = draw("text", svg, {x: 0, y: box.height - 6, class: "is-best"}, short("winner: " + won.name, box.width - 90));
    draw("title", text, {}, won.name);
  }
  holder.replaceChildren(svg);
}
