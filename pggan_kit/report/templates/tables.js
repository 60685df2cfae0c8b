"use strict";
// Tables of many rows sort by a click on a column's head, and show the rows that hold the words in the box above.
for (const table of document.querySelectorAll("table.long")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);

  const read = (row, place) => {
    const text = row.cells[place].textContent;
    const number = Number(text.replace(/,/g, ""));
    return text.trim() === "" || Number.isNaN(number) ? text : number;
  };
  // What is missing stands last in either direction, numbers stand before text.
  const compare = (a, b, sign) => {
    if (a === "-" || b === "-") return (a === "-") - (b === "-");
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    if (typeof a === "number") return sign * (a - b);
    return sign * a.localeCompare(b, undefined, { numeric: true });
  };

  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      rows.sort((a, b) => compare(read(a, place), read(b, place), rising ? 1 : -1));
      body.append(...rows);
    });
  });

  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "show rows with ...";
  box.setAttribute("aria-label", "show the rows that hold these words");
  const count = document.createElement("span");
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = ` ${shown} of ${rows.length} rows`;
  };
  box.addEventListener("input", filter);
  const line = document.createElement("p");
  line.append(box, count);
  table.parentNode.before(line);
  filter();
}
