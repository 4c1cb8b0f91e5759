// Building blocks. Text from data is set as textContent, never as markup.
const byId = (id) => document.getElementById(id);

const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

const head = (text, scope) => {
  const cell = make("th", text);
  cell.scope = scope;
  return cell;
};

// A box that may be wider than the screen: it scrolls, also by keyboard.
const scroller = (label, content) => {
  const box = make("div", undefined, "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", label);
  box.append(content);
  return box;
};
