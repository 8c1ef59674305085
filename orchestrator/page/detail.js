/* From the side: a model's trainings, and of one of them the curves, the losses by name, the setting and the time. */
const FIRST = 50;  // trainings of a model that its table begins with
const took = new Map(((data.told.cost || {}).stages || []).map(one => [one.key, one]));

const led = new Set(data.told.answers.flatMap(one => one.best ? one.best.keys : []).flatMap(lineage)); // to the best

/* Opens on this stage, or on that of the best path, or on the best. */
function detail(name, index) {
  const box = at("detail"), model = data.models.find(one => one.name === name), from = document.activeElement;
  const own = data.stages.map((stage, i) => ({stage, i})).filter(({stage}) => stage.path[stage.path.length - 1] === name);
  const order = ({stage}) => stage.score ?? -Infinity;
  own.sort((a, b) => order(b) - order(a));
  const first = own.find(({i}) => i === index) || own.find(({i}) => led.has(i)) || own[0];
  if (own.indexOf(first) >= FIRST) own.unshift(...own.splice(own.indexOf(first), 1));
  const close = push("\u00d7", {class: "close", "aria-label": "Close"}, () => box.close());
  const head = make("div", {class: "head"}, make("h2", {id: "detail-name", tabindex: -1}, name), close);
  const about = make("p", {class: "soft"}, [model.title, ...(model.parameters ? [model.parameters + " parameters"] : [])].join(", "));
  const one = make("div", {});
  box.replaceChildren(head, about, ...(own.length ? [...trainings(own, first.i, one), one] : [make("p", {}, "It was not trained.")]));
  if (!box.open) {
    box.showModal();
    box.onclose = () => {
      if (box.open) return;  // it is told later, and somebody may have opened it anew
      box.replaceChildren();
      if (from && from.isConnected) from.focus();
    };
    box.onclick = event => { if (event.target === box) box.close(); };
  }
  box.scrollTop = 0;
  at("detail-name").focus();
  if (first) training(one, data.stages[first.i]);
}

/* The table of a model's trainings; a click on one shows it. */
function trainings(own, shown, one) {
  const settings = own.some(({stage}) => stage.setting), heads = ["path", ...(settings ? ["setting"] : []), ...(severalSeeds ? ["seed"] : []), "state", data.metric, "time"];
  const body = make("tbody");
  const rows = own.map(({stage, i}) => {
    const cells = [stage.state, stage.score === null ? "" : figure(stage.score), stage.seconds ? clock(stage.seconds) : ""];
    const row = make("tr", i === shown ? {"aria-current": "true"} : {});
    const open = push(arrow(stage.path) + (stage.role === "alone" ? " alone" : "") + (stage.budget === 1 ? "" : " @" + stage.budget), {}, () => {
      body.querySelector("[aria-current]")?.removeAttribute("aria-current");
      row.setAttribute("aria-current", "true");
      training(one, stage);
    });
    row.append(make("td", {}, open), ...(settings ? [make("td", {}, stage.setting)] : []), ...(severalSeeds ? [make("td", {class: "n"}, String(stage.seed))] : []));
    row.append(...cells.map((text, n) => make("td", {class: n ? "n" : stage.state}, text)));
    return row;
  });
  body.append(...rows.slice(0, FIRST));
  const rest = rows.slice(FIRST), more = push("Show all " + rows.length, {class: "more"}, () => { body.append(...rest); more.remove(); });
  const number = text => ["seed", data.metric, "time"].includes(text) ? {class: "n", scope: "col"} : {scope: "col"};
  const table = make("div", {class: "wide tall"}, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(text => make("th", number(text), text)))), body));
  return rest.length ? [table, more] : [table];
}

/* One training. */
function training(holder, stage) {
  const facts = make("dl", {class: "facts"}), cost = took.get(stage.key);
  const fact = (name, value, long) => { if (value !== "" && value !== null && value !== undefined) facts.append(make("div", long ? {class: "long"} : {}, make("dt", {}, name), make("dd", {}, value))); };
  fact(data.metric, stage.score === null ? "" : figure(stage.score));
  fact("state", stage.state);
  fact("time", stage.seconds ? clock(stage.seconds) : "");
  fact("predicted", cost && cost.predicted ? clock(cost.predicted) : "");
  fact("epochs", stage.selected ? "best " + stage.selected + " of " + stage.epochs : stage.epochs ? stage.epochs : "published weights");
  fact("seed", stage.seed);
  fact("device", cost ? cost.device : "");
  fact("setting", stage.setting, true);
  fact("losses of distillation", stage.losses.join(" + "), true);
  const teacher = data.stages.findIndex(one => one.key === stage.teacher);
  if (teacher >= 0) fact("taught by", push(arrow(data.stages[teacher].path), {class: "link"}, () => detail(data.stages[teacher].path.at(-1), teacher)), true);
  fact(stage.state === "lost" ? "needs" : "why", stage.reason, true);
  fact("key", stage.key, true);
  const grid = make("div", {class: "grid"}), none = make("p", {class: "soft"}, "No epoch of it is known.");
  const aside = push("Set beside others", {class: "more"}, () => { add(data.stages.indexOf(stage)); drawChosen(); at("detail").close(); at("h-curves").scrollIntoView(); });
  holder.replaceChildren(make("h3", {}, named(stage)), facts, ...(stage.epoch.length ? [grid, aside] : [none]));
  if (!stage.epoch.length) return;
  charts(grid, [{stage, slot: 0}], true);
  if (stage.thinned) grid.after(make("p", {class: "soft"}, "Of its many epochs some are drawn, evenly; report.json has all."));
  holder.append(take("curves of " + stage.key, () => epochRows([stage])));
}
