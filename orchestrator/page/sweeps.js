/* The settings of an edge: two knobs as a map, one or more than two as lines from axis to axis. */
function toldOf(point) {
  const values = Object.entries(point.text).map(([name, text]) => name + " " + text);
  const score = point.score === null ? "no score" : data.metric + " " + figure(point.score);
  const from = point.warm ? ["from " + point.warm] : [];
  return [score + (point.won ? ", the winner" : ""), point.state + " after " + point.epochs + " epochs", ...from, ...values].join("\n");
}

function drawSweep() {
  const holder = at("sweep"), edge = data.sweeps[at("edge") ? Number(at("edge").value) : 0], scores = edge.points.map(p => p.score).filter(s => s !== null);
  const low = Math.min(...scores), high = Math.max(...scores), strength = p => p.score === null ? 0 : (p.score - low) / (high - low || 1);
  const box = {left: 24, right: 24, top: 34, bottom: 34, width: holder.clientWidth, height: narrow() ? 280 : 340};
  const svg = draw("svg", null, {width: box.width, height: box.height, role: "img", "aria-label": "Settings of " + arrow(edge.path)});
  const map = edge.axes.length === 2, y = part => box.height - box.bottom - part * (box.height - box.top - box.bottom);
  const points = [...edge.points].sort((a, b) => a.won - b.won || strength(a) - strength(b));
  const colour = p => p.won ? "var(--best)" : p.score === null ? "var(--bad)" : "var(--ink)";
  const follow = (node, point, px, py) => {
    node.setAttribute("tabindex", 0);
    node.setAttribute("aria-label", toldOf(point));
    for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => tip(holder, toldOf(point), px, py));
    for (const event of ["pointerleave", "blur"]) node.addEventListener(event, () => tip(holder, ""));
  };
  if (map) {
    const [across, up] = edge.axes, left = 72, x = part => left + part * (box.width - left - box.right - 16);
    draw("text", svg, {x: box.width - box.right, y: box.height - 2, "text-anchor": "end", class: "strong"}, short(across.name, box.width / 2));
    draw("text", svg, {x: 0, y: 14, class: "strong"}, short(up.name, box.width / 2));
    for (const [part, text] of across.ticks) draw("text", svg, {x: x(part), y: box.height - 16, "text-anchor": "middle"}, short(text, 110));
    for (const [part, text] of up.ticks) {
      draw("line", svg, {class: "axis", x1: left, x2: box.width - box.right, y1: y(part), y2: y(part)});
      draw("text", svg, {x: left - 14, y: y(part) + 4, "text-anchor": "end"}, short(text, left - 14));
    }
    const topmost = new Map(points.map(p => [JSON.stringify(p.places), p]));  // one setting may be there with several teachers
    for (const p of points) {
      const places = edge.axes.map(axis => p.places[axis.name]);
      if (places.includes(null)) continue;
      const size = 9 + 9 * strength(p), px = x(places[0]), py = y(places[1]);
      const square = draw("rect", svg, {x: px - size / 2, y: py - size / 2, width: size, height: size, rx: 2, fill: colour(p), "fill-opacity": 0.2 + 0.8 * strength(p), stroke: colour(p), "stroke-dasharray": p.state === "pruned" ? "3 2" : "none"});
      follow(square, p, px, py);
      const named = p.won || (points.length <= 24 && topmost.get(JSON.stringify(p.places)) === p);
      if (p.score !== null && named) {
        const left = px + size / 2 + 50 > box.width, away = size / 2 + 4;
        draw("text", svg, {x: left ? px - away : px + away, y: py + 4, "text-anchor": left ? "end" : "start", class: "halo " + (p.won ? "is-best" : "")}, figure(p.score));
      }
    }
  } else {
    const axes = [...edge.axes, {name: data.metric, ticks: scores.length ? [[0, figure(low)], [1, figure(high)]] : []}];
    const x = i => box.left + i * (box.width - box.left - box.right) / (axes.length - 1);
    axes.forEach((axis, i) => {
      const anchor = i === 0 ? "start" : i === axes.length - 1 ? "end" : "middle", shift = i === 0 ? 6 : i === axes.length - 1 ? -6 : 0;
      draw("line", svg, {class: "axis", x1: x(i), x2: x(i), y1: box.top, y2: box.height - box.bottom});
      draw("text", svg, {x: x(i), y: 14 + (i % 2 && axes.length > 3 && narrow() ? 14 : 0), "text-anchor": anchor, class: "strong"}, short(axis.name, box.width / axes.length));
      for (const [part, text] of axis.ticks) draw("text", svg, {x: x(i) + shift, y: y(part) + (part > 0.9 ? -4 : part < 0.1 ? 14 : 4), "text-anchor": anchor, class: "halo"}, short(text, box.width / axes.length));
    });
    for (const p of points) {
      const places = [...edge.axes.map(axis => p.places[axis.name]), p.score === null ? null : strength(p)];
      const there = places.map((part, i) => [part, i]).filter(([part]) => part !== null).map(([part, i]) => [x(i), y(part)]);
      const line = draw("polyline", svg, {class: "curve", points: there.map(([px, py]) => px.toFixed(1) + "," + py.toFixed(1)).join(" "), stroke: colour(p), "stroke-opacity": p.won ? 1 : 0.15 + 0.5 * strength(p), "stroke-dasharray": p.state === "pruned" ? "4 3" : "none"});
      if (p.won) line.style.strokeWidth = "3px";
      const [px, py] = there[there.length - 1];
      follow(draw("circle", svg, {cx: px, cy: py, r: p.won ? 5 : 3.5, fill: colour(p), "fill-opacity": p.won ? 1 : 0.3 + 0.7 * strength(p)}), p, px, py);
    }
  }
  holder.replaceChildren(svg);
}
