/* Tables that sort, and downloads of all that they and the pictures show. */

/* What is behind a cell, where that is more than its text. */
const behind = cell => cell.dataset.v ?? cell.textContent.trim();

/* A click on a heading sorts by the values behind the cells; numbers start with the largest, what is unknown is last. */
function sortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  for (const head of heads.filter(head => "sort" in head.dataset)) {
    const column = head.cellIndex;
    const button = push("", {}, () => {
      const number = head.classList.contains("n"), before = head.getAttribute("aria-sort");
      const way = before ? (before === "descending" ? 1 : -1) : number ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map(row => [behind(row.cells[column]), row]);
      const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") : way * (number ? a - b : collate(a, b));
      table.tBodies[0].append(...rows.sort((a, b) => order(a[0], b[0])).map(([, row]) => row));
      table.dispatchEvent(new Event("sorted"));
    });
    button.append(...head.childNodes);
    head.append(button);
  }
}
const collate = new Intl.Collator("en", {numeric: true}).compare;

/* A long table shows its first rows, however it is sorted, until all are asked for. */
function fold(table, first) {
  const rows = () => [...table.tBodies[0].rows], below = () => rows().slice(first).filter(row => !row.classList.contains("alone"));
  if (below().length < 5) return;
  const open = () => { rows().forEach(row => { row.hidden = false; delete row.dataset.folded; }); };
  const close = () => { open(); below().forEach(row => { row.hidden = true; row.dataset.folded = ""; }); };
  const all = () => { open(); more.remove(); table.removeEventListener("sorted", close); };
  const more = push("Show all " + rows().length, {class: "more"}, all);
  close();
  table.addEventListener("sorted", close);
  table.parentElement.after(more);
  addEventListener("beforeprint", all);
}

/* The rows of a table as they stand, without those that a choice hides: figures in full, the rest as it reads. */
function tableRows(table) {
  const heads = [...table.querySelectorAll("thead th")];
  return [...table.tBodies[0].rows].filter(row => !row.hidden || "folded" in row.dataset).map(row => Object.fromEntries(heads.map(head => {
    const cell = row.cells[head.cellIndex], value = behind(cell), text = cell.textContent.trim().replace(/\s+/g, " ");
    const number = head.classList.contains("n") && value !== "" && Number.isFinite(Number(value));
    const name = head.textContent.trim() + (head.dataset.unit ? " (" + head.dataset.unit + ")" : "");
    return [name, number ? Number(value) : text === "" ? null : text];
  })));
}

/* Spreadsheets run what begins like a formula: such a text gets an apostrophe in front, as they write it themselves. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  let text = typeof value === "string" ? value : JSON.stringify(value);
  const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
  if (!number && /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/.test(text)) text = "'" + text;
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function csv(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  return [names, ...rows.map(row => names.map(name => row[name]))].map(cells => cells.map(csvCell).join(",") + "\r\n").join("");
}

function save(name, kind, text) {
  const link = make("a", {href: URL.createObjectURL(new Blob([text], {type: kind})), download: (data.told.study + "-" + name).replace(/[^\w.-]+/g, "_")});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const saveCsv = (name, rows) => save(name + ".csv", "text/csv", csv(rows));
const saveJson = (name, value) => save(name + ".json", "application/json", JSON.stringify(value, null, 1));

/* Two buttons that download the rows that a function makes. */
function take(name, rows) {
  return make("div", {class: "take"},
    push("CSV", {"aria-label": "Download " + name + " as CSV"}, () => saveCsv(name, rows())),
    push("JSON", {"aria-label": "Download " + name + " as JSON"}, () => saveJson(name, rows())));
}

/* All that the page knows, but for images. */
function everything() {
  const {models, edges, stages, points, sweeps, rungs} = data;
  const found = seen && {...seen, images: seen.images.map(({uri, ...image}) => image)};
  return {...data.told, models, lattice: edges, stages, points, sweeps, rungs, seen: found};
}
