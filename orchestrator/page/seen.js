
/* Boxes over the validation images, and the distributions of one box's edges. All text is set as text. */
{
  const root = document.getElementById("seen");
  const find = selector => root.querySelector(selector), least = find("#seen-least"), off = new Set();
  const students = [...new Set(seen.panels.map(panel => panel.student))].filter(Boolean);
  let student = students[0];
  const mine = number => ["", student].includes(seen.panels[number].student);
  const figure = value => value.toFixed(2).replace(/^0/, "");
  const NAMED = 4; // wrong detections of an image whose names do not hide it
  const className = label => seen.classes[label];

  function html(tag, parent, attributes, text) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  function svg(tag, parent, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  /* An image with an empty drawing over it, in its pixels. */
  function frame(parent, image, said) {
    const holder = html("div", parent, {class: "seen-frame"});
    holder.style.aspectRatio = image.width + " / " + image.height;
    const picture = html("img", holder, {src: image.uri, alt: ""});
    if (Math.max(image.width, image.height) <= 160) picture.className = "seen-crisp";
    return svg("svg", holder, {viewBox: "0 0 " + image.width + " " + image.height, preserveAspectRatio: "none", role: "img", "aria-label": said});
  }

  function outline(parent, box, kind) {
    const group = svg("g", parent, {class: "seen-" + kind});
    const place = {x: box[0], y: box[1], width: Math.max(0, box[2] - box[0]), height: Math.max(0, box[3] - box[1])};
    for (const part of ["halo", "line"]) svg("rect", group, {...place, class: "seen-" + part});
    return group;
  }

  const LINE = 15, LETTER = 6.2; // pixels of a name: its height, and how wide a letter is about

  /* The name of a box above it, below it or in it, where it lies on none of the names in `taken`; else nowhere. */
  function name(drawing, image, box, text, taken) {
    if (off.has("names")) return;
    const holder = drawing.parentNode, scale = (holder.clientWidth || 240) / image.width, width = image.width * scale, height = image.height * scale;
    const [x1, y1, x2, y2] = box.map(value => Math.max(0, value * scale)), right = x1 > 0.6 * width;
    const room = right ? Math.min(x2, width) : width - x1, long = Math.min(room, 7 + LETTER * text.length), left = right ? room - long : x1;
    const clash = top => taken.some(([x, y, wide]) => left < x + wide && x < left + long && Math.abs(top - y) < LINE);
    const top = [y1 - LINE, y2, y1].find(top => top >= 0 && top + LINE <= height && !clash(top));
    if (top === undefined) return;
    taken.push([left, top, long]);
    const node = html("div", holder, {class: "seen-name"}, text), part = (value, whole) => 100 * value / whole + "%";
    Object.assign(node.style, {top: part(top, height), maxWidth: part(room, width)}, right ? {right: part(width - room, width)} : {left: part(x1, width)});
  }

  /* What one detector says of an image, as [box, kind, object], what is right and sure last, so that it lies on top. */
  function judged(image, number, from) {
    const sure = image.found[number].filter(box => box[4] >= from), taken = new Set(sure.map(box => box[6]));
    const boxes = sure.map(box => [box, box[6] >= 0 ? "right" : box[6] === -1 ? "wrong" : "neither", box[6]]).reverse();
    const missed = image.truth.map((box, object) => [box, "missed", object]).filter(([, , object]) => !taken.has(object));
    return [...missed, ...boxes.filter(([, kind]) => kind !== "right"), ...boxes.filter(([, kind]) => kind === "right")];
  }

  function panel(row, image, title, boxes, note) {
    const holder = html("div", row, {class: "seen-panel"});
    html("b", holder, {title}, title);
    const told = boxes.map(([box, kind]) => kind === "truth" || kind === "missed" ? className(box[4]) + (kind === "missed" ? ", missed" : "") : className(box[5]) + " " + figure(box[4]) + ", " + (kind === "neither" ? "does not count" : kind));
    const drawing = frame(holder, image, title + ": " + (told.join("; ") || "nothing"));
    const wrong = boxes.filter(([, kind]) => kind === "wrong").length, named = kind => kind === "truth" || kind === "right" || (kind === "wrong" && wrong <= NAMED), taken = [];
    boxes.forEach(([box, kind, object], i) => {
      if (off.has(kind)) return;
      const group = outline(drawing, box, kind);
      group.addEventListener("pointerenter", () => point(row, object, told[i], group));
      group.addEventListener("pointerleave", () => point(row));
      if (object >= 0) group.dataset.object = object;
    });
    for (const [box, kind] of [...boxes].reverse()) {
      if (named(kind) && !off.has(kind)) name(drawing, image, box, className(kind === "truth" ? box[4] : box[5]), taken);
    }
    html("span", holder, {}, note);
  }

  /* Say what a box is, and show who else found the same object. */
  function point(row, object, text, group) {
    for (const other of row.querySelectorAll("[data-object]")) other.classList.toggle("seen-on", object >= 0 && other.dataset.object === String(object));
    const figure = row.parentNode, old = figure.querySelector(".seen-tip");
    if (old) old.remove();
    if (!group) return;
    group.classList.add("seen-on");
    group.addEventListener("pointerleave", () => group.classList.remove("seen-on"), {once: true});
    const tip = html("div", figure, {class: "seen-tip"}, text), around = figure.getBoundingClientRect(), box = group.getBoundingClientRect();
    tip.style.left = Math.max(0, Math.min(box.left - around.left, around.width - tip.offsetWidth)) + "px";
    tip.style.top = box.bottom - around.top + 6 + "px";
  }

  function show() {
    const from = Number(least.value), numbers = seen.panels.map((panel, i) => i).filter(mine);
    find("output").textContent = figure(from);
    find("#seen-images").replaceChildren();
    const part = text => html("h3", find("#seen-images"), {}, text);
    seen.images.forEach((image, i) => {
      if (image.differs && !i) part("Where the student alone and distilled differ most");
      if (!image.differs && i && seen.images[i - 1].differs) part("Spread evenly");
      const holder = html("figure", find("#seen-images"), {class: "seen-image"});
      html("figcaption", holder, {}, image.name);
      const row = html("div", holder, {class: "seen-row"});
      row.style.setProperty("--seen-across", numbers.length + 1);
      panel(row, image, "Truth", image.truth.map((box, object) => [box, "truth", object]), image.truth.length + (image.truth.length === 1 ? " object" : " objects"));
      for (const number of numbers) {
        const boxes = judged(image, number, from), count = kind => boxes.filter(box => box[1] === kind).length;
        const {role, title} = seen.panels[number];
        panel(row, image, title + (role === "teacher" ? ", the teacher" : ""), boxes, ["right", "wrong", "missed"].map(kind => count(kind) + "\u00a0" + kind).join(", "));
      }
    });
  }

  const COLOURS = {teacher: "var(--rest)", alone: "var(--c3)", direct: "var(--c4)", distilled: "var(--c2)"};

  const BARS = 0.55; // how opaque the teacher's are

  /* The distributions of four edges, one above another: the teacher as bars, the others as steps. */
  function doubt() {
    const edges = seen.edges, image = seen.images[edges.image], lines = edges.lines.filter(line => mine(line.panel));
    const colour = line => COLOURS[seen.panels[line.panel].role], list = find(".seen-lines"), charts = find(".seen-charts");
    find("#seen-box").replaceChildren();
    list.replaceChildren();
    charts.replaceChildren();
    const drawing = frame(find("#seen-box"), image, "The box of a " + className(edges.label));
    outline(drawing, edges.truth, "missed");
    for (const line of lines) outline(drawing, line.box, "line").lastChild.style.stroke = colour(line);
    name(drawing, image, edges.truth, className(edges.label), []);
    const told = text => { const item = html("li", list); const key = html("i", item); html("span", item, {}, text); return key; };
    for (const line of lines) {
      const {title, role} = seen.panels[line.panel];
      const key = told(role === "teacher" ? title + ", the teacher" : title + ": " + line.divergence.toFixed(3));
      Object.assign(key.style, {background: colour(line), opacity: role === "teacher" ? BARS : 1});
    }
    Object.assign(told("truth").style, {border: "2px dotted var(--soft)"});
    const highest = Math.max(...lines.flatMap(line => line.edges.flat()));
    SIDES.forEach((side, edge) => chart(charts, side, lines.map(line => [line.edges[edge], colour(line)]), edges.truth_bins[edge], highest));
  }

  function chart(parent, side, lines, truth, highest) {
    const bins = lines[0][0].length, width = Math.max(150, parent.clientWidth / 2 - 14), height = 128, bottom = height - 20, step = (width - 8) / bins;
    const drawing = svg("svg", parent, {width, height, role: "img", "aria-label": "How likely each distance of the " + side + " edge is"});
    const x = bin => 4 + bin * step, y = value => bottom - value / highest * (bottom - 22);
    lines.forEach(([values, colour], i) => {
      if (!i) values.forEach((value, bin) => svg("rect", drawing, {x: x(bin) + step * 0.06, y: y(value), width: step * 0.88, height: bottom - y(value), fill: colour, "fill-opacity": BARS}));
      else svg("path", drawing, {d: values.map((value, bin) => (bin ? "V" : "M" + x(0) + " ") + y(value).toFixed(1) + "H" + x(bin + 1).toFixed(1)).join(""), fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round"});
    });
    svg("line", drawing, {x1: 0, x2: width, y1: bottom, y2: bottom, stroke: "var(--line)"});
    if (truth >= -0.5 && truth <= bins - 0.5) svg("line", drawing, {x1: x(truth + 0.5), x2: x(truth + 0.5), y1: 16, y2: bottom, stroke: "var(--soft)", "stroke-width": 2, "stroke-dasharray": "2 4"});
    svg("text", drawing, {x: 0, y: 11, class: "seen-side"}, side);
    const every = Math.ceil(bins * 20 / width);
    for (let bin = 0; bin < bins; bin += every) svg("text", drawing, {x: x(bin + 0.5), y: height - 5, "text-anchor": "middle"}, String(bin));
    svg("text", drawing, {x: width, y: 11, "text-anchor": "end"}, "distance in bins");
  }

  const all = () => { show(); if (seen.edges) doubt(); };
  if (students.length > 1) {
    const select = find("#seen-of select");
    for (const one of students) html("option", select, {value: one}, one);
    select.addEventListener("change", () => { student = select.value; all(); });
    find("#seen-of").hidden = false;
  }
  find("[data-kind=neither]").hidden = !seen.images.some(image => image.found.flat().some(box => box[6] === -2));
  least.addEventListener("input", show);
  for (const button of root.querySelectorAll(".seen-keys button")) button.addEventListener("click", () => {
    const drawn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", drawn);
    if (drawn) off.delete(button.dataset.kind); else off.add(button.dataset.kind);
    show();
  });
  let across = innerWidth;
  addEventListener("resize", () => {
    if (across === innerWidth) return;
    across = innerWidth;
    all();
  });
  all();
}
