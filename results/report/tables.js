// Tables sort by the column whose heading is pressed: up or down, then as they were.

// "−0.3 [−1.5…+0.9]" → −0.3; null for a dash. A bound ("< 0.001") comes before its number.
const numberIn = (text) => {
  const found = text.replaceAll("−", "-").replaceAll(",", "").match(/-?\d+(\.\d+)?/);
  return found ? Number(found[0]) - (text.startsWith("<") ? 1e-9 : 0) : null;
};

const compareTexts = new Intl.Collator("en", { numeric: true }).compare;

const sortable = (table) => {
  const body = table.tBodies[0], original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((cell, column) => {
    const numeric = cell.classList.contains("number");
    const orders = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const button = make("button", cell.textContent);
    button.type = "button";
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      // undefined after both orders: as the table was
      const next = orders[orders.indexOf(cell.getAttribute("aria-sort")) + 1];
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      if (next) cell.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const text = (row) => row.cells[column].textContent.trim();
      const keys = new Map(original.map((row) => [row, numeric ? numberIn(text(row)) : text(row)]));
      const compare = (a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        if (x === null || y === null) return (x === null) - (y === null); // dashes stay last
        return sign * (numeric ? x - y : compareTexts(x, y));
      };
      body.append(...(next ? [...original].sort(compare) : original));
    });
  });
};

document.querySelectorAll("table.sortable").forEach(sortable);
