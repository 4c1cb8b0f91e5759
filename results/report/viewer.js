// The viewer of questions. Only visible rows are in the page, so ten thousand questions scroll fast.
// Text from data is set as textContent, never as markup.
"use strict";
(() => {
  const ROW = 26, SPARE = 10;
  const byId = (id) => document.getElementById(id);
  const { runs, questions } = JSON.parse(byId("data").textContent);
  const controls = ["baseline", "treatment", "flips", "answer", "task", "pictured", "search"].map(byId);
  const [baseline, treatment, flips, answer, task, pictured, search] = controls;
  let shown = [], chosen = -1;

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const addOption = (select, value, text) => {
    const option = make("option", text);
    option.value = value;
    select.append(option);
  };

  const found = (question, run) => (question.a || [])[run] || null;
  const asked = (one) => one !== null && one.e === undefined;

  const flipIs = {
    all: () => true,
    any: (b, t) => b.c !== t.c,
    lost: (b, t) => b.c && !t.c,
    gained: (b, t) => !b.c && t.c,
    both: (b, t) => b.c && t.c,
    neither: (b, t) => !b.c && !t.c,
  };
  const answerIs = {
    all: () => true,
    right: (t) => asked(t) && t.c === 1,
    wrong: (t) => asked(t) && t.c === 0,
    invalid: (t) => asked(t) && t.v === 0,
    error: (t) => t !== null && t.e !== undefined,
  };
  const texts = questions.map((q) => [q.i, q.s || "", ...(q.o || [])].join("\n").toLowerCase());

  const filter = () => {
    const b = Number(baseline.value), t = Number(treatment.value);
    const words = search.value.trim().toLowerCase();
    shown = [];
    questions.forEach((question, index) => {
      const before = found(question, b), after = found(question, t);
      if (task.value && question.t !== task.value) return;
      if (pictured.checked && !question.f) return;
      if (words && !texts[index].includes(words)) return;
      if (flips.value !== "all" && !(asked(before) && asked(after) && flipIs[flips.value](before, after))) return;
      if (!answerIs[answer.value](after)) return;
      shown.push(index);
    });
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${questions.length.toLocaleString("en")} questions`;
    byId("spacer").style.height = `${shown.length * ROW}px`;
    byId("list").scrollTop = 0;
    draw();
  };

  const mark = (one) => {
    if (one === null) return make("span", "–", "mark quiet");
    if (one.e !== undefined) return make("span", "!", "mark wrong");
    return one.c ? make("span", "✓", "mark right") : make("span", "✗", "mark wrong");
  };

  const draw = () => {
    const list = byId("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    const rows = byId("rows");
    rows.style.top = `${first * ROW}px`;
    rows.replaceChildren(...shown.slice(first, last).map((index) => {
      const question = questions[index];
      const row = make("div", undefined, index === chosen ? "row chosen" : "row");
      row.append(mark(found(question, Number(baseline.value))), mark(found(question, Number(treatment.value))));
      row.append(make("span", question.i + (question.f ? " ▦" : ""), "id"), make("span", question.s || "", "quiet"));
      row.addEventListener("click", () => choose(index));
      return row;
    }));
  };

  const choose = (index) => {
    chosen = index;
    draw();
    const question = questions[index], detail = byId("detail");
    detail.replaceChildren(make("h3", question.i), make("p", `${question.t} · ${question.v}`, "quiet"));
    if (question.f) {
      const frames = make("div", undefined, "frames");
      for (const uri of question.f) {
        if (!uri.startsWith("data:image/jpeg;base64,")) continue;
        const image = make("img");
        image.src = uri;
        image.alt = "frame";
        frames.append(image);
      }
      detail.append(frames);
    }
    if (question.s) detail.append(make("p", question.s, "stem"));
    detail.append(answers(question));
  };

  const letterOf = (k) => String.fromCharCode(65 + k);

  const answers = (question) => {
    const answered = (question.a || []).flatMap((one) => (one && one.o ? Object.keys(one.o) : []));
    const letters = [...new Set([...(question.o || []).map((_, k) => letterOf(k)), ...answered])].sort();
    const table = make("table"), head = table.createTHead().insertRow();
    head.append(make("th", "option"), ...runs.map((run) => make("th", run)));
    letters.forEach((letter) => {
      const text = (question.o || [])[letter.charCodeAt(0) - 65];
      const row = table.insertRow();
      row.append(make("td", `${letter === question.g ? "✓ " : ""}(${letter}) ${text === undefined ? "" : text}`));
      runs.forEach((_, run) => {
        const one = found(question, run), cell = make("td");
        const share = one && one.o ? one.o[letter] : undefined;
        if (share !== undefined) {
          const bar = make("span", undefined, "bar");
          bar.style.width = `${(5 * share).toFixed(2)}em`;
          cell.append(bar, `${(100 * share).toFixed(1)} %`);
        }
        row.append(cell);
      });
    });
    if (!letters.includes(question.g)) {
      const row = table.insertRow();
      row.append(make("td", `right: ${question.g}`), ...runs.map(() => make("td")));
    }
    const last = table.insertRow();
    last.append(make("th", "answer"));
    runs.forEach((_, run) => {
      const one = found(question, run), cell = make("td");
      cell.append(mark(one), one === null ? "not in this run" : one.e !== undefined ? one.e : one.p || "(empty)");
      if (asked(one) && one.v === 0) cell.append(make("span", " names no option", "quiet"));
      last.append(cell);
    });
    return table;
  };

  runs.forEach((run, k) => { addOption(baseline, k, run); addOption(treatment, k, run); });
  treatment.value = String(Math.min(1, runs.length - 1));
  [...new Set(questions.map((question) => question.t))].sort().forEach((name) => addOption(task, name, name));
  controls.forEach((control) => control.addEventListener("input", filter));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("list").addEventListener("scroll", draw);
  byId("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !shown.length) return;
    event.preventDefault();
    const place = Math.min(shown.length - 1, Math.max(0, shown.indexOf(chosen) + step));
    const list = byId("list");
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
    choose(shown[place]);
  });
  filter();
  document.documentElement.dataset.ready = "yes";
})();
