"use strict";
// What models write may hold anything: like names it only ever becomes a text node.

// A row's chip in every part of the section turns its cards on and off everywhere in it.
function rowChips(section, draw) {
  const groups = new Map();
  section.rows.forEach((row, i) => groups.set(row.sparsity, [...(groups.get(row.sparsity) ?? []), i]));
  const turn = (rows, on) => {
    for (const i of rows) section.rows[i].shown = on;
    draw();
  };
  return element("div", { class: "row-chips" }, ...[...groups].map(([sparsity, rows]) => {
    const all = element("button", { type: "button", class: "group", title: `all rows at ${sparsity}, or none` }, sparsity);
    all.addEventListener("click", () => turn(rows, !rows.every((i) => section.rows[i].shown)));
    return element("div", { class: "chips" }, all, ...rows.map((i) => {
      const chip = element("button", { type: "button", "data-row": i }, section.rows[i].name);
      chip.addEventListener("click", () => turn([i], !section.rows[i].shown));
      return chip;
    }));
  }));
}

function written(text, empty) {
  // a space that parts a text from its prompt would look like an indent
  return /\S/.test(text) ? element("pre", { dir: "auto" }, text.replace(/^ +/, "")) : element("p", { class: "nothing" }, empty);
}

function card(row, i, ...parts) {
  const head = element("p", { class: "who" }, row.name, element("span", {}, row.sparsity));
  return element("div", { class: i === 0 ? "card first" : "card" }, head, ...parts);
}

function cards(section, texts, parts) {
  const made = section.rows.map((row, i) => (row.shown ? card(row, i, ...(texts[i] === null ? [element("p", { class: "nothing" }, "not measured")] : parts(texts[i]))) : null)).filter(Boolean);
  return element("div", { class: "cards" }, ...(made.length ? made : [element("p", { class: "nothing" }, "No row is chosen.")]));
}

function question(section, asked, i) {
  const given = element("div", { class: "given" }, element("p", { class: "what" }, `Question ${i + 1}, end of the prompt`), written(asked.prompt, "an empty prompt"));
  const right = element("div", { class: "given right-answer" }, element("p", { class: "what" }, "Right answer"), written(asked.target, "none"));
  return element("article", { class: "sample" }, element("div", { class: "asked" }, given, right), cards(section, asked.answers, (answer) => [written(answer, "an empty answer")]));
}

function continuation(section, entry, tokens) {
  const end = ([text, ended, repeating]) => element("p", { class: "end" }, ...[
    repeating ? element("span", { class: "status failed" }, "repeats") : null,
    element("span", {}, ended ? "ended by itself" : `cut at ${tokens} tokens`),
  ].filter(Boolean));
  const given = element("div", { class: "given" }, element("p", { class: "what" }, "Prompt"), written(entry.prompt, "an empty prompt"));
  return element("article", { class: "sample" }, given, cards(section, entry.texts, (text) => [written(text[0], "nothing"), end(text)]));
}

function startWritten(place) {
  const section = data.written[+place.dataset.section];
  const asked = place.querySelector(".answers"), texts = place.querySelector(".texts");
  let task = 0;
  const drawAnswers = () => {
    const { how, questions } = section.tasks[task];
    asked.querySelector(".how").textContent = how;
    asked.querySelector(".samples").replaceChildren(...questions.map((each, i) => question(section, each, i)));
  };
  const draw = () => {
    if (asked) drawAnswers();
    if (texts) texts.querySelector(".samples").replaceChildren(...section.texts.prompts.map((entry) => continuation(section, entry, section.texts.tokens)));
    for (const chip of place.querySelectorAll("[data-row]")) chip.setAttribute("aria-pressed", section.rows[+chip.dataset.row].shown);
    // the question stands at a prompt's end
    for (const prompt of place.querySelectorAll(".given pre")) prompt.scrollTop = prompt.scrollHeight;
  };
  for (const part of [asked, texts].filter(Boolean)) part.querySelector(".choices").after(rowChips(section, draw));
  if (asked) {
    const select = element("select", { class: "task" }, ...section.tasks.map((each, i) => element("option", { value: i }, each.name)));
    select.addEventListener("change", () => {
      task = +select.value;
      draw();
    });
    asked.querySelector(".choices").append(element("label", {}, "Task", select));
  }
  draw();
}

document.querySelectorAll(".written").forEach(startWritten);
