"use strict";

// Questions as tabs: the sections stand below one another where no script runs.
const sections = [...document.querySelectorAll("section")];
const tabs = document.createElement("nav");
tabs.setAttribute("role", "tablist");

function show(i, focus) {
  sections.forEach((section, j) => (section.hidden = i !== j));
  [...tabs.children].forEach((tab, j) => {
    tab.setAttribute("aria-selected", i === j);
    tab.tabIndex = i === j ? 0 : -1;
  });
  if (focus) tabs.children[i].focus();
}

sections.forEach((section, i) => {
  const tab = document.createElement("button");
  tab.textContent = section.getAttribute("aria-label");
  tab.setAttribute("role", "tab");
  section.setAttribute("role", "tabpanel");
  section.id = `question-${i}`;
  tab.setAttribute("aria-controls", section.id);
  tab.addEventListener("click", () => show(i));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show((i + step + sections.length) % sections.length, true);
  });
  tabs.append(tab);
});
if (sections.length > 1) {
  sections[0].before(tabs);
  show(0);
}

// A click on a heading sorts a table by its column: as numbers where all are, what is missing last; a second click turns it.
function numeric(text) {
  const found = text.replace(/[,\u2009]/g, "").replace("\u2212", "-").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : NaN;
}

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
      const texts = new Map([...body.rows].map((row) => [row, row.cells[column].textContent.trim()]));
      const known = [...texts.values()].filter((text) => text && text !== "–");
      const asNumbers = known.every((text) => !Number.isNaN(numeric(text)));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [texts.get(a), texts.get(b)];
        const missing = (x === "–") - (y === "–");
        return missing || up * (asNumbers ? numeric(x) - numeric(y) : x.localeCompare(y));
      });
      body.append(...rows);
    });
  });
}

// A click on a figure shows it as large as the window.
const dialog = document.createElement("dialog");
const large = document.createElement("img");
dialog.append(large);
document.body.append(dialog);
dialog.addEventListener("click", () => dialog.close());
for (const figure of document.querySelectorAll("section img")) {
  figure.tabIndex = 0;
  figure.setAttribute("role", "button");
  const enlarge = () => {
    [large.src, large.alt] = [figure.src, figure.alt];
    dialog.showModal();
  };
  figure.addEventListener("click", enlarge);
  figure.addEventListener("keydown", (event) => event.key === "Enter" && enlarge());
}
