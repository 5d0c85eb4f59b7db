// A point and its row in the table are one run: pointing at either marks both and tells its figures.
const told = $("#point");
const headings = [...document.querySelectorAll("table.runs thead th")].map((cell) => cell.textContent);

function tell(run) {
  for (const node of document.querySelectorAll("[data-run]")) {
    node.classList.toggle("here", node.dataset.run === run);
  }
  const row = $(`tr[data-run="${run}"]`);
  const facts = [...row.cells].map((cell, index) => [headings[index], cell]);
  const list = el("dl", {}, ...facts.flatMap(([name, cell]) => (cell.querySelector("a") ? []
    : [el("div", {}, el("dt", {}, name), el("dd", {}, cell.textContent))])));
  told.replaceChildren(list, el("p", {class: "quiet"}, DATA.runs[Number(run)].name));
}

for (const node of document.querySelectorAll("a.point, tr[data-run]")) {
  for (const event of ["pointerenter", "focusin"]) node.addEventListener(event, () => tell(node.dataset.run));
}
for (const link of document.querySelectorAll("a[href^='#run=']")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a page of its own, which reads the address
    event.preventDefault();
    Object.assign(state, {run: Number(link.closest("[data-run]").dataset.run), query: "", filters: {}});
    update();
    $("#samples").scrollIntoView();
  });
}
