/* Models on a line, edges as arcs above it: two arcs never share both their middle and their height. */
const ended = counts => (counts.failed || 0) + (counts.lost || 0);
const told = counts => Object.entries(counts).map(([state, number]) => number + " " + state).join(", ");
const kinds = {
  best: {stroke: "var(--best)", "stroke-width": 3},
  done: {stroke: "var(--rest)", "stroke-width": 1.25},
  bad: {stroke: "var(--bad)", "stroke-width": 1.5, "stroke-dasharray": "6 4"},
  pruned: {stroke: "var(--rest)", "stroke-width": 1.25, "stroke-dasharray": "1.5 4", "stroke-linecap": "round"},
  unseen: {stroke: "var(--line)", "stroke-width": 1.25},
};
const kindOf = edge => edge.best ? "best" : edge.paths.length ? "done" : ended(edge.counts) ? "bad" : edge.counts.pruned ? "pruned" : "unseen";

function drawLattice() {
  const holder = at("lattice"), models = data.models, gap = Math.max(76, Math.min(480, (holder.clientWidth - 92) / Math.max(1, models.length - 1)));
  const place = new Map(models.map((model, i) => [model.name, i])), x = name => 46 + place.get(name) * gap;
  const swept = !narrow() && data.edges.some(edge => edge.setting), rise = swept ? 58 : narrow() ? 34 : 42, span = edge => Math.abs(place.get(edge.ends[1]) - place.get(edge.ends[0]));
  const base = 34 + rise * Math.max(1, ...data.edges.map(span)), width = 92 + gap * (models.length - 1);
  const svg = draw("svg", null, {width, height: base + 84, role: "group", "aria-label": "Models and who taught whom"});
  const labels = draw("g", null, {}), crowded = data.edges.length > 15, parts = [];
  for (const edge of [...data.edges].sort((a, b) => a.best - b.best)) {
    const [x1, x2] = edge.ends.map(x), top = base - rise * span(edge) / 0.75, middle = (x1 + x2) / 2, high = base - rise * span(edge), kind = kindOf(edge);
    const d = "M" + x1 + " " + base + " C" + x1 + " " + top + " " + x2 + " " + top + " " + x2 + " " + base;
    const line = draw("path", svg, {d, fill: "none", class: "edge " + kind, "data-edge": arrow(edge.ends), ...kinds[kind]});
    const touch = draw("path", svg, {d, fill: "none", class: "edge", stroke: "transparent", "stroke-width": 14});
    const shows = places.get(edge.stage);
    touch.addEventListener("click", () => shows === undefined ? detail(edge.ends[1]) : detail(data.stages[shows].path.at(-1), shows));
    const bad = ended(edge.counts), shown = edge.paths.length ? figure(edge.score) : bad ? "\u00d7 failed" : edge.counts.pruned ? "given up" : edge.counts.running ? "running" : "";
    const quiet = crowded && !edge.best && !(bad && !edge.paths.length) ? " quiet" : "";
    const lines = [[shown, kind === "best" ? "is-best" : kind === "bad" ? "is-bad" : ""]];
    if (edge.setting && !narrow()) lines.push([short(edge.setting, gap * span(edge) * 0.8), ""]);
    if (edge.paths.length && edge.counts.pruned) lines.push([short(edge.counts.pruned + " given up early", gap * span(edge) * 0.8), ""]);
    if (bad && edge.paths.length) lines.push(["\u00d7 " + bad + " failed", "is-bad"]);
    const texts = lines.map(([text, look], i) => draw("text", labels, {x: middle, y: high + 4 + 15 * i, "text-anchor": "middle", class: "halo " + look + quiet, "pointer-events": "none"}, text));
    const paths = edge.paths.slice(0, 12).map(one => figure(one.score) + "  " + arrow(one.path));
    telling(touch, holder, [arrow(edge.ends) + ": " + (told(edge.counts) || "not tried"), ...(edge.setting ? [edge.setting] : []), ...paths].join("\n"), middle, Math.max(0, high + 18));
    parts.push({ends: edge.ends, nodes: [line, ...texts]});
  }
  svg.append(labels);
  const largest = Math.max(...models.map(model => model.size || 0));
  for (const model of models) {
    const best = data.best.some(path => path.includes(model.name)), done = model.state === "done", bad = ended(model.counts);
    const said = [model.name, done ? data.metric + " " + figure(model.score) : model.state === "unseen" ? "not trained" : model.state, ...(model.parameters ? [model.parameters + " parameters"] : [])];
    const node = draw("g", svg, {role: "button", tabindex: 0, "aria-haspopup": "dialog", "aria-label": said.join(", "), "data-model": model.name});
    draw("rect", node, {x: x(model.name) - gap / 2 + 2, y: base - 14, width: gap - 4, height: 90, fill: "transparent"});
    const r = model.size ? 5 + 7 * Math.sqrt(model.size / largest) : 8;
    draw("circle", node, {cx: x(model.name), cy: base, r, "stroke-width": 2, fill: best ? "var(--best)" : done ? "var(--rest)" : "var(--page)", stroke: best ? "var(--best)" : !done && bad ? "var(--bad)" : "var(--rest)"});
    const lines = [[short(model.name, gap - 4), "strong"], [done ? figure(model.score) : model.state === "unseen" ? "" : model.state, !done && bad ? "is-bad" : ""], [model.parameters, ""]];
    if (done && bad) lines.splice(2, 0, ["\u00d7 " + bad + " failed", "is-bad"]);
    lines.forEach(([text, look], i) => draw("text", node, {x: x(model.name), y: base + 30 + 17 * i, "text-anchor": "middle", class: look}, text));
    const bring = event => parts.forEach(({ends, nodes}) => nodes.forEach(one => {
      const leave = event.type === "pointerleave" || event.type === "blur";
      one.classList.toggle("near", !leave && ends.includes(model.name));
      one.classList.toggle("far", !leave && !ends.includes(model.name));
    }));
    for (const event of ["pointerenter", "pointerleave", "focus", "blur"]) node.addEventListener(event, bring);
    node.addEventListener("click", () => detail(model.name));
    node.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      detail(model.name);
    });
  }
  holder.replaceChildren(svg);
}

function drawLegend() {
  const names = {best: "on the best path", done: "trained", bad: "failed, or what it needed did", pruned: "given up early", unseen: "not trained"};
  const there = new Set(data.edges.map(kindOf));
  const losses = [...new Set(data.stages.filter(stage => stage.losses.length).map(stage => stage.losses.map(loss => loss.split(" (")[0]).join(" + ")))];
  at("legend").replaceChildren(...Object.keys(names).filter(kind => there.has(kind)).map(kind => {
    const swatch = draw("svg", null, {width: 28, height: 10, "aria-hidden": "true"});
    draw("line", swatch, {x1: 0, x2: 28, y1: 5, y2: 5, ...kinds[kind]});
    return make("li", {}, swatch, names[kind]);
  }), ...(data.models.some(model => model.size) ? [make("li", {}, "a dot's area: parameters")] : []), ...(losses.length === 1 ? [make("li", {}, "taught by " + losses[0])] : []));
}
