// The chosen question: its frames, its text, and every run's answer to it.
const letterOf = (k) => String.fromCharCode(65 + k);

const mark = (one) => {
  const [sign, className, said] = one === null ? ["–", "quiet", "not asked"]
    : one.e !== undefined ? ["!", "wrong", "failed"]
    : one.c ? ["✓", "right", "right"] : ["✗", "wrong", "wrong"];
  const element = make("span", sign, `mark ${className}`);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", said);
  return element;
};

const framesOf = (question) => {
  const frames = make("div", undefined, "frames");
  const uris = (question.f || []).filter((uri) => uri.startsWith("data:image/jpeg;base64,"));
  uris.forEach((uri, k) => {
    const image = make("img");
    image.src = uri;
    image.alt = `frame ${k + 1} of ${uris.length}`;
    frames.append(image);
  });
  return uris.length ? frames : null;
};

const answersTable = (question) => {
  const answered = (question.a || []).flatMap((one) => (one && one.o ? Object.keys(one.o) : []));
  const listed = (question.o || []).map((_, k) => letterOf(k));
  const letters = [...new Set([...listed, ...answered])].sort();
  const table = make("table");
  const heads = runs.map((run) => head(run, "col"));
  table.createTHead().insertRow().append(head("option", "col"), ...heads);
  const body = table.createTBody();
  letters.forEach((letter) => {
    const text = (question.o || [])[letter.charCodeAt(0) - 65];
    const row = body.insertRow(), right = letter === question.g;
    if (right) row.className = "target";
    row.append(head(`${right ? "✓ " : ""}(${letter}) ${text === undefined ? "" : text}`, "row"));
    runs.forEach((_, run) => {
      const one = answerOf(question, run), cell = make("td");
      const share = one && one.o ? one.o[letter] : undefined;
      if (share !== undefined) {
        const bar = make("span", undefined, "bar");
        bar.style.width = `${(100 * Math.min(1, share)).toFixed(1)}%`;
        cell.append(`${(100 * share).toFixed(1)} %`, bar);
      }
      row.append(cell);
    });
  });
  if (!letters.includes(question.g)) {
    body.insertRow().append(head(`right: ${question.g}`, "row"), ...runs.map(() => make("td")));
  }
  const last = body.insertRow();
  last.append(head("answer", "row"));
  runs.forEach((_, run) => {
    const one = answerOf(question, run), cell = make("td");
    const said = one === null ? "not in this run" : one.e ?? (one.p || "(empty)");
    cell.append(mark(one), " ", said);
    if (asked(one) && one.v === 0) cell.append(make("span", " names no option", "quiet"));
    last.append(cell);
  });
  return scroller("Options and answers", table);
};

const showQuestion = (question) => {
  const detail = byId("detail");
  if (question === null) {
    detail.replaceChildren(make("p", "No question passes the filters.", "quiet"));
    return;
  }
  const parts = [make("h3", question.i), make("p", `${question.t} · ${question.v}`, "quiet")];
  const frames = framesOf(question);
  if (frames) parts.push(frames);
  if (question.s) parts.push(make("p", question.s, "stem"));
  detail.replaceChildren(...parts, answersTable(question));
};
