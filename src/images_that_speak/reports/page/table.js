// Tables whose columns sort: a click on a heading, or enter on it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((cell, index) => {
    if (!table.tBodies[0].rows[0]?.cells[index]?.hasAttribute("data-value")) return;
    const button = el("button", {type: "button"}, ...cell.childNodes);
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[index].dataset.value;
        return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null)
        : (down ? -1 : 1) * (typeof a === "number" && typeof b === "number" ? a - b
          : String(a).localeCompare(String(b), "en", {numeric: true}))));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
