/* The seeds: a row a path, a point a seed, the mean and its interval. */
function drawSeeds() {
  const holder = at("seeds"), rows = data.seeds;
  if (!holder) return;
  const width = holder.clientWidth, above = narrow(), step = above ? 46 : 30, top = 8;
  const names = above ? 0 : Math.min(width * 0.4, 24 + 7.2 * Math.max(...rows.map(row => row.name.length)));
  const left = names + 8, right = width - 12, bottom = top + step * rows.length;
  const svg = draw("svg", null, {width, height: bottom + 40});
  const all = rows.flatMap(row => row.scores), least = Math.min(...all), most = Math.max(...all), span = most - least || 0.01;
  const ends = rows.flatMap(row => row.interval || []);
  const low = Math.max(least - span, Math.min(least, ...ends)) - span * 0.04, high = Math.min(most + span, Math.max(most, ...ends)) + span * 0.04;
  const x = value => left + (Math.max(low, Math.min(high, value)) - low) / (high - low) * (right - left);
  const marks = ticks(low, high, Math.max(2, (right - left) / 90)), gap = (marks[1] - marks[0]) || 1;
  const digits = Math.min(4, Math.max(0, -Math.floor(Math.log10(gap) + 1e-9)));
  for (const value of marks) {
    draw("line", svg, {class: "axis", x1: x(value), x2: x(value), y1: top, y2: bottom});
    draw("text", svg, {x: x(value), y: bottom + 18, "text-anchor": "middle"}, value.toFixed(digits));
  }
  draw("text", svg, {x: right, y: bottom + 36, "text-anchor": "end"}, data.metric);
  rows.forEach((row, i) => {
    const y = top + step * i + (above ? 32 : step / 2), best = isBest(row.path);
    const colour = best ? "var(--best)" : row.tied ? "var(--ink)" : "var(--rest)";
    const [from, to] = row.interval || [row.score, row.score];
    const place = above ? {x: left, y: y - 16} : {x: names - 4, y: y + 4, "text-anchor": "end"};
    draw("title", draw("text", svg, {...place, class: best ? "halo is-best" : "halo"}, short(row.name, above ? right : names)), {}, row.name);
    const group = draw("g", svg, {tabindex: 0, role: "img", "aria-label": row.name + " " + figure(row.score)});
    draw("rect", group, {x: left, y: y - 13, width: right - left, height: 26, fill: "transparent"});
    if (row.interval) {
      draw("line", group, {x1: x(from), x2: x(to), y1: y, y2: y, stroke: colour, "stroke-width": 1.25});
      for (const end of [from, to].filter(value => value >= low && value <= high)) draw("line", group, {x1: x(end), x2: x(end), y1: y - 5, y2: y + 5, stroke: colour, "stroke-width": 1.25});
    }
    for (const value of row.scores) draw("circle", group, {cx: x(value), cy: y, r: 4, fill: best || row.tied ? colour : "var(--page)", stroke: best || row.tied ? "var(--page)" : colour, "stroke-width": 1.25});
    draw("line", group, {x1: x(row.score), x2: x(row.score), y1: y - 9, y2: y + 9, stroke: colour, "stroke-width": 2.5});
    const told = [row.name, "mean " + figure(row.score) + (row.interval ? "   95% " + figure(from) + " to " + figure(to) : ""), "seeds " + row.scores.map(figure).join("  ")].join("\n");
    for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => tip(holder, told, x(row.score), y + 16));
    for (const event of ["pointerleave", "blur"]) group.addEventListener(event, () => tip(holder, ""));
  });
  holder.replaceChildren(svg);
}
