// The list of questions. Only visible rows are in the page, so ten thousand questions scroll fast.
const ROW = 32, SPARE = 10;
let shown = [], chosen = -1;
let named = false; // whether the reader chose the question, so that the address names it

const draw = () => {
  const list = byId("list"), place = shown.indexOf(chosen);
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const below = Math.ceil((list.scrollTop + list.clientHeight) / ROW);
  const last = Math.min(shown.length, below + SPARE);
  const pair = [...new Set([Number(byId("baseline").value), Number(byId("treatment").value)])];
  byId("rows").style.top = `${first * ROW}px`;
  byId("rows").replaceChildren(...shown.slice(first, last).map((index, k) => {
    const question = questions[index], row = make("div", undefined, "row");
    row.id = `row-${first + k}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(index === chosen));
    row.setAttribute("aria-setsize", shown.length);
    row.setAttribute("aria-posinset", first + k + 1);
    row.append(...pair.map((run) => mark(answerOf(question, run))));
    row.append(make("span", question.i + (question.f ? " ▦" : ""), "id"));
    row.append(make("span", question.s || "", "stem quiet"));
    row.addEventListener("click", () => pick(index));
    return row;
  }));
  if (place >= first && place < last) list.setAttribute("aria-activedescendant", `row-${place}`);
  else list.removeAttribute("aria-activedescendant");
};

const choose = (index) => {
  chosen = index;
  draw();
  showQuestion(index < 0 ? null : questions[index]);
};

// The reader chooses a question: the address names it, without a step for "back".
const pick = (index) => {
  named = true;
  choose(index);
  history.replaceState(null, "", address(questions[index].i));
  linkHere();
};

const reveal = (place) => {
  const list = byId("list"), top = place * ROW, lowest = top + ROW - list.clientHeight;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (lowest > list.scrollTop) list.scrollTop = lowest;
};

// Shows what passes the filters; keeps the chosen question if it does, else takes the first one.
const show = () => {
  shown = shownQuestions();
  const [some, all] = [shown, questions].map((list) => list.length.toLocaleString("en"));
  byId("count").textContent = `${some} of ${all} questions`;
  byId("spacer").style.height = `${shown.length * ROW}px`;
  byId("list").scrollTop = 0;
  const place = named ? shown.indexOf(chosen) : -1;
  if (place < 0) named = false;
  else reveal(place);
  choose(place < 0 ? (shown.length ? shown[0] : -1) : chosen);
  linkHere();
};

// The link of the navigation returns to the current view; "show all" is there if some are hidden.
const linkHere = () => {
  byId("reset").hidden = shown.length === questions.length;
  byId("to-questions").href = address(named ? questions[chosen].i : null);
};

const showAddress = () => {
  const wanted = readAddress();
  const index = wanted === null ? -1 : questions.findIndex((question) => question.i === wanted);
  named = index >= 0;
  if (named) chosen = index;
  show();
};

const goToQuestions = () => {
  byId("questions").scrollIntoView();
  byId("list").focus({ preventScroll: true }); // the next arrow key chooses a question
};

if (byId("questions")) {
  fillControls();
  unfiltered = Object.fromEntries(CONTROLS.map((name) => [name, valueOf(name)]));
  byId("filters").addEventListener("input", (event) => {
    show();
    const here = address(named ? questions[chosen].i : null);
    if (event.target.id === "search") history.replaceState(null, "", here); // not every letter
    else history.pushState(null, "", here);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("list").addEventListener("scroll", draw);
  byId("list").addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(byId("list").clientHeight / ROW) - 1);
    const end = shown.length - 1, at = shown.indexOf(chosen);
    const place = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: end,
    }[event.key];
    if (place === undefined || !shown.length) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const bounded = Math.min(end, Math.max(0, place));
    reveal(bounded);
    pick(shown[bounded]);
  });
  // Another address: by a link of this page, by "back", or typed. Anchors of other sections keep
  // the view.
  window.addEventListener("hashchange", () => {
    if (location.hash === "" || location.hash.startsWith(QUESTIONS)) showAddress();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest(`a[href^="${QUESTIONS}"]`);
    if (link) requestAnimationFrame(goToQuestions);
  });
  showAddress();
  if (location.hash.startsWith(QUESTIONS)) byId("questions").scrollIntoView();
}
document.documentElement.dataset.ready = "yes";
