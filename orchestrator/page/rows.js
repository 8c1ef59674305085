/* What the pictures show, as rows to take along. */
const SIDES = ["left", "top", "right", "bottom"];

/* A row an edge: the score on the best path or else the best, as the picture has it, with which setting and on which path. */
const edgeRows = () => data.edges.map(edge => ({
  teacher: edge.ends[0], student: edge.ends[1], [data.metric]: edge.score, "on the best path": edge.best, state: edge.state,
  setting: edge.setting || null, path: places.has(edge.stage) ? arrow(data.stages[places.get(edge.stage)].path) : null, trainings: told(edge.counts) || null, key: edge.stage,
}));

const pointRows = () => data.points.map(({front, path, ...rest}) => ({...rest, path: arrow(path), "on the front of": front.join(" ")}));

const seedRows = () => data.seeds.flatMap(row => row.scores.map((value, i) => ({path: row.name, seed: data.told.seeds[i], [data.metric]: value})));

const settingRows = () => data.sweeps.flatMap(edge => edge.points.map(point => ({edge: arrow(edge.path), ...point.values, [data.metric]: point.score, epochs: point.epochs, state: point.state, won: point.won})));

const raceRows = () => data.rungs.flatMap(race => race.lines.flatMap(line => line.points.map(([epoch, value]) => ({race: race.name, line: line.name, epoch, [data.metric]: value, state: line.state}))));

/* A row a box: what is there, and what each detector finds. `object`: which of those that are there it is or finds. */
function boxRows() {
  const row = (image, role, by, label, score, is, object, [x1, y1, x2, y2]) => ({image, role, by, class: seen.classes[label], score, is, object, x1, y1, x2, y2});
  const judged = object => object >= 0 ? "right" : object === -1 ? "wrong" : "does not count";
  return seen.images.flatMap(({name, truth, found}) => [
    ...truth.map((box, object) => row(name, "truth", null, box[4], null, null, object, box)),
    ...found.flatMap((boxes, i) => boxes.map(box => row(name, seen.panels[i].role, seen.panels[i].title, box[5], box[4], judged(box[6]), box[6] >= 0 ? box[6] : null, box))),
  ]);
}

/* A row a bin: how likely a detector holds that distance of an edge. `truth`: the true distance, in bins. */
function distributionRows() {
  const {image, label, truth_bins, lines} = seen.edges;
  return lines.flatMap(line => SIDES.flatMap((edge, i) => line.edges[i].map((probability, bin) => ({
    image: seen.images[image].name, class: seen.classes[label], role: seen.panels[line.panel].role, by: seen.panels[line.panel].title,
    edge, bin, probability, truth: truth_bins[i], divergence: line.divergence,
  }))));
}
