(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const live = document.querySelector(".live");
  const say = (text) => { if (live) live.textContent = text; };

  // Sliders: the range is what keyboards and screen readers move; a pointer moves it from anywhere on the image.
  const move = (pair, value) => {
    const slider = pair.querySelector(".slider");
    slider.value = value;
    slider.setAttribute("aria-valuetext", `${slider.value} % before`);
    const style = pair.querySelector(".stage").style;
    style.setProperty("--split", `${slider.value}%`);
    style.setProperty("--share", slider.value);
  };
  for (const pair of document.querySelectorAll(".pair")) {
    const stage = pair.querySelector(".stage"), slider = pair.querySelector(".slider");
    slider.addEventListener("input", () => move(pair, slider.value));
    const follow = (event) => {
      const box = stage.getBoundingClientRect();
      move(pair, Math.round(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * 100));
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button || pair.classList.contains("covered") || event.target.closest("button")) return;
      event.preventDefault();
      slider.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
    move(pair, slider.value);
  }
  for (const all of document.querySelectorAll(".slide-all")) {
    const pairs = all.closest(".gallery").querySelectorAll(".pair");
    const turn = () => { for (const pair of pairs) move(pair, 100 - all.value); };
    all.addEventListener("input", turn);
    turn();
  }

  // What may be explicit is shown when asked for.
  const reveal = (covered) => {
    covered.classList.remove("covered");
    covered.querySelector(".reveal")?.remove();
    const slider = covered.querySelector(".slider");
    if (slider) slider.disabled = false;
    return slider;
  };
  for (const button of document.querySelectorAll(".reveal")) {
    button.addEventListener("click", () => {
      reveal(button.closest(".covered"))?.focus({ preventScroll: true });
      say("The images are shown.");
    });
  }
  for (const button of document.querySelectorAll(".reveal-all")) {
    button.addEventListener("click", () => {
      document.querySelectorAll(".covered").forEach(reveal);
      button.disabled = true;
      say("All images are shown.");
    });
  }

  // Tables: a heading's button sorts its column, again the other way; what is missing stays last.
  const key = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
    return { text, number: text === "" || text === "–" ? NaN : Number(text), none: text === "" || text === "–" };
  };
  const compare = (a, b) => Number.isNaN(a.number) || Number.isNaN(b.number)
    ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector(".sort")?.addEventListener("click", () => {
        const turn = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", turn);
        const rows = [...body.rows].map((row) => [key(row, heading.cellIndex), row]);
        rows.sort(([a], [b]) => a.none - b.none || (turn === "ascending" ? compare(a, b) : compare(b, a)));
        body.append(...rows.map(([, row]) => row));
        say(`Sorted by ${heading.textContent.trim()}, ${turn}.`);
      });
    }
  }

  // The index: only the concepts whose row has these words.
  for (const field of document.querySelectorAll("[data-filter]")) {
    const rows = [...document.getElementById(field.dataset.filter).tBodies[0].rows];
    const count = field.parentElement.querySelector(".filter-count");
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${left} of ${rows.length}` : "";
    };
    field.addEventListener("input", filter);
    filter();
  }
})();
