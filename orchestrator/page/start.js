/* What happens when the page opens: tables, downloads, sections, and pictures as they come into sight. */
for (const table of document.querySelectorAll("table[id]")) {
  sortable(table);
  const more = table.parentElement.nextElementSibling, buttons = take(table.id, () => tableRows(table));
  (more && more.classList.contains("more") ? more : table.parentElement).after(buttons);
}
if (at("paths")) fold(at("paths"), 20);

/* Of a report of several studies each has its own file. */
const files = data.told.studies.length ? data.told.studies.map(one => [one.study + " as YAML", one.study, one]) : [["The study as YAML", "study", data.told]];
at("everything").append(
  push("All of it as JSON", {}, () => saveJson("report", everything())),
  push("All curves as CSV", {}, () => saveCsv("curves", epochRows(data.stages))),
  ...files.map(([label, name, one]) => push(label, {}, () => save(name + ".yaml", "text/plain", one.study_yaml))));

for (const [id, name, rows] of [["legend", "lattice", edgeRows], ["cost", "pareto", pointRows], ["seeds", "seeds", seedRows], ["sweep", "settings", settingRows], ["rungs", "races", raceRows], ["seen-images", "detections", boxRows], ["seen-doubt", "edge distributions", distributionRows]]) {
  if (at(id)) at(id).after(take(name, rows));
}
at("curves").after(take("chosen curves", () => epochRows(chosen().map(({stage}) => stage))));

if (at("add")) {
  at("add").append(new Option("choose", ""), ...data.stages.flatMap((stage, i) => stage.epoch.length ? [new Option(named(stage), i)] : []));
  at("add").addEventListener("change", event => { if (event.target.value) add(Number(event.target.value)); event.target.value = ""; again(at("curves")); });
}
if (at("only")) at("only").addEventListener("change", event => {
  for (const row of at("stages").tBodies[0].rows) row.hidden = event.target.value !== "" && row.dataset.state !== event.target.value;
});
document.querySelector("main").addEventListener("click", event => {
  const button = event.target.closest("td button");
  if (!button) return;
  if (button.dataset.stage) {
    const index = Number(button.dataset.stage);
    detail(data.stages[index].path.at(-1), index);
  } else if (button.dataset.path) {
    choosePath(JSON.parse(button.dataset.path));
    again(at("curves"));
    at("h-curves").scrollIntoView();
  }
});

choosePath(data.best.length ? data.best[0] : (data.stages[0] || {path: []}).path);
const alone = data.stages.findIndex(stage => stage.role === "alone");
if (alone >= 0 && data.best.length) add(alone);

drawLegend();
picture(at("lattice"), drawLattice);
picture(at("seeds"), drawSeeds);
picture(at("cost"), drawCost);
picture(at("sweep"), drawSweep);
picture(at("rungs"), drawRungs);
picture(at("curves"), drawChosen);
show(at("lattice"));
for (const [choice, holder] of [["against", "cost"], ["edge", "sweep"], ["race", "rungs"]]) {
  if (at(choice)) at(choice).addEventListener("change", () => again(at(holder)));
}
if (at("edge")) at("edge").value = Math.max(0, data.sweeps.findIndex(edge => isBest(edge.path)));
if (at("race")) at("race").value = Math.max(0, data.rungs.findIndex(race => race.path && isBest(race.path)));
at("curves").parentElement.hidden = !data.stages.some(stage => stage.epoch.length);
at("cost").parentElement.hidden = !data.points.some(point => Object.keys(AXES).some(axis => point[axis] !== null));

/* The sections, and which of them is on top now. */
const sections = [...document.querySelectorAll("main > section:not([hidden])")].map(section => {
  const head = section.querySelector("h2"), link = make("a", {href: "#" + head.id}, head.dataset.short || head.textContent);
  at("contents").append(make("li", {}, link));
  return {section, link};
});
function current() {
  const here = sections.filter(({section}) => section.getBoundingClientRect().top < innerHeight / 3).at(-1);
  for (const {link} of sections) link.removeAttribute("aria-current");
  if (here) here.link.setAttribute("aria-current", "location");
}
let waiting = false;
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; current(); });
}, {passive: true});
current();
