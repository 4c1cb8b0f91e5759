// The filters of the questions and their order. The page's address holds them, so that a view can
// be shared and "back" returns to the view before: #questions?treatment=effective&flips=lost
const { runs, benchmarks, questions } = JSON.parse(byId("data").textContent);
const CONTROLS = [
  "baseline", "treatment", "flips", "answer", "benchmark", "task", "sort", "search", "pictured",
];
// Controls whose values are places in a list of names.
const NAMED = { baseline: runs, treatment: runs, benchmark: benchmarks };
const QUESTIONS = "#questions?";

const answerOf = (question, run) => (question.a || [])[run] || null;
const asked = (one) => one !== null && one.e === undefined;
const valueOf = (name) => {
  if (name === "pictured") return byId(name).checked ? "1" : "";
  return byId(name).value;
};

const flipIs = {
  any: (b, t) => b.c !== t.c,
  lost: (b, t) => b.c && !t.c,
  gained: (b, t) => !b.c && t.c,
  both: (b, t) => b.c && t.c,
  neither: (b, t) => !b.c && !t.c,
};
const answerIs = {
  right: (t) => asked(t) && t.c === 1,
  wrong: (t) => asked(t) && t.c === 0,
  invalid: (t) => asked(t) && t.v === 0,
  error: (t) => t !== null && t.e !== undefined,
};
const searched = questions.map((q) => [q.i, q.s || "", ...(q.o || [])].join("\n").toLowerCase());

// How many times as probable as the second option the first one is; the smaller, the less sure.
const sureness = (one) => {
  const [first, second] = Object.values((one && one.o) || {}).sort((a, b) => b - a);
  return second ? first / second : Infinity;
};

// Flipped questions first, then wrong, then failed ones, then the rest; within each those with
// frames, then those answered least surely.
const usefulness = (question, b, t) => {
  const before = answerOf(question, b), after = answerOf(question, t);
  if (after === null) return 4;
  if (!asked(after)) return 2;
  if (asked(before) && before.c !== after.c) return 0;
  return after.c ? 3 : 1;
};

const shownQuestions = () => {
  const b = Number(byId("baseline").value), t = Number(byId("treatment").value);
  const [flips, answer, benchmark, task] = ["flips", "answer", "benchmark", "task"].map(valueOf);
  const words = byId("search").value.trim().toLowerCase(), pictured = byId("pictured").checked;
  const shown = [];
  questions.forEach((question, index) => {
    const before = answerOf(question, b), after = answerOf(question, t);
    if (benchmark && (question.b || 0) !== Number(benchmark)) return;
    if (task && question.t !== task) return;
    if (pictured && !question.f) return;
    if (words && !searched[index].includes(words)) return;
    const both = asked(before) && asked(after);
    if (flipIs[flips] && !(both && flipIs[flips](before, after))) return;
    if (answerIs[answer] && !answerIs[answer](after)) return;
    shown.push(index);
  });
  if (byId("sort").value === "id") return shown;
  const keys = new Map(shown.map((index) => {
    const question = questions[index];
    const sure = sureness(answerOf(question, t));
    return [index, [usefulness(question, b, t), question.f ? 0 : 1, sure]];
  }));
  return shown.sort((one, other) => {
    const a = keys.get(one), b = keys.get(other);
    return a[0] - b[0] || a[1] - b[1] || (a[2] === b[2] ? one - other : a[2] - b[2]);
  });
};

const fillControls = () => {
  const add = (select, value, text) => {
    const option = make("option", text);
    option.value = value;
    option.title = text;
    select.append(option);
  };
  runs.forEach((run, k) => ["baseline", "treatment"].forEach((name) => add(byId(name), k, run)));
  benchmarks.forEach((name, k) => add(byId("benchmark"), k, name));
  byId("filters").classList.toggle("several", benchmarks.length > 1);
  const tasks = [...new Set(questions.map((question) => question.t))].sort();
  tasks.forEach((name) => add(byId("task"), name, name));
  byId("treatment").value = String(Math.min(1, runs.length - 1));
};

let unfiltered = {};

// The address of the current view; `question` is the id of the chosen one, or null.
const address = (question) => {
  const parts = new URLSearchParams();
  for (const name of CONTROLS) {
    const value = valueOf(name);
    if (value === unfiltered[name]) continue;
    parts.set(name, NAMED[name] ? NAMED[name][Number(value)] : value);
  }
  if (question !== null) parts.set("question", question);
  return QUESTIONS + parts.toString();
};

// Sets the controls as the address says; what it does not name, or what does not exist, is
// unfiltered. Returns the id of the question that it names, or null.
const readAddress = () => {
  const said = location.hash.startsWith(QUESTIONS) ? location.hash.slice(QUESTIONS.length) : "";
  const parts = new URLSearchParams(said);
  for (const name of CONTROLS) {
    const control = byId(name);
    let value = parts.has(name) ? parts.get(name) : unfiltered[name];
    if (parts.has(name) && NAMED[name]) value = String(NAMED[name].indexOf(value));
    const options = [...(control.options || [])].map((one) => one.value);
    const exists = name === "search" || options.includes(value);
    if (name === "pictured") control.checked = value === "1";
    else control.value = exists ? value : unfiltered[name];
  }
  return parts.get("question");
};
