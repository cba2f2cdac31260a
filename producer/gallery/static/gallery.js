// The page. Values from the server enter the document as text, never as HTML.

const $ = (id) => document.getElementById(id);
const grid = $("grid"), more = $("more"), dialog = $("picture");
const view = { show: "all", words: "", next: null }; // the grid's content
const cards = new Map(); // by id: the list item in the grid

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Error((await response.text()) || `the gallery answered ${response.status}`);
  return response.json();
}

function notice(text) {
  $("notice").textContent = text ?? "";
  $("notice").hidden = !text;
}

function image(picture) {
  if (!picture.image) return element("div", { className: "hole", textContent: picture.why });
  const made = element("img", { src: picture.image, alt: "", loading: "lazy", decoding: "async" });
  made.addEventListener("error", () =>
    made.replaceWith(element("div", { className: "hole", textContent: "No picture to show" })));
  return made;
}

function card(picture) {
  const failed = picture.status === "error";
  const words = element("div", { className: "words" },
    failed ? element("div", { className: "code", textContent: picture.code }) : null,
    element("div", { className: "caption", textContent: failed ? picture.message : picture.caption ?? "" }),
    element("div", { className: "name", textContent: picture.name }),
    picture.score === undefined ? null
      : element("div", { className: "score", textContent: `score ${picture.score.toFixed(3)}` }));
  const button = element("button", { className: failed ? "card failed" : "card", type: "button" }, image(picture), words);
  button.addEventListener("click", () => open(picture.id));
  const item = element("li", {}, button);
  item.dataset.id = picture.id;
  return item;
}

function append(pictures) {
  for (const picture of pictures) {
    const made = card(picture);
    cards.get(picture.id)?.remove();
    cards.set(picture.id, made);
    grid.append(made);
  }
}

function prepend(pictures) {
  if (view.words) return;
  for (const picture of pictures) {
    const shown = cards.get(picture.id);
    if (view.show === "error" && picture.status !== "error") {
      shown?.remove();
      cards.delete(picture.id);
      continue;
    }
    const made = card(picture);
    shown?.remove();
    cards.set(picture.id, made);
    grid.prepend(made);
  }
}

async function page(before) {
  const query = new URLSearchParams();
  if (before !== null) query.set("before", before);
  if (view.show === "error") query.set("status", "error");
  const answer = await ask(`/api/pictures?${query}`);
  append(answer.pictures);
  view.next = answer.next;
  more.hidden = answer.next === null;
}

async function start() {
  grid.replaceChildren();
  cards.clear();
  $("heading").textContent = view.show === "error" ? "What failed, newest first" : "Newest first";
  await page(null);
}

async function search(words) {
  $("heading").textContent = `Searching for “${words}” …`;
  const answer = await ask("/api/search", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ words }),
  }).catch((error) => {
    $("heading").textContent = `No answer for “${words}”`;
    throw error;
  });
  grid.replaceChildren();
  cards.clear();
  more.hidden = true;
  append(answer.pictures);
  $("heading").textContent = answer.pictures.length ? `Nearest to “${words}”` : `Nothing is near “${words}”`;
  notice(answer.notice);
}

function facts(rows) {
  $("facts").replaceChildren(...rows.flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: value })]));
}

async function open(id) {
  const answer = await ask(`/api/pictures/${encodeURIComponent(id)}`).catch((error) => notice(error.message));
  if (!answer) return;
  $("picture-title").textContent = answer.picture.caption ?? answer.picture.name;
  $("picture-image").replaceChildren(image(answer.picture));
  facts(answer.facts);
  $("json").textContent = answer.json;
  $("near").hidden = answer.neighbours.length === 0;
  $("neighbours").replaceChildren(...answer.neighbours.map(card));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function seconds(value) {
  if (value < 90) return `${Math.max(1, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

function state(now) {
  const all = now.counts.ok + now.counts.error;
  $("count-all").textContent = all;
  $("count-error").textContent = now.counts.error;
  const parts = [`${all} done`, `${now.counts.error} failed`];
  if (now.rate > 0) parts.push(`${now.rate.toFixed(1)} a second`);
  if (now.open) parts.push(`${now.open} still open`);
  if (now.open && now.eta_seconds !== null) parts.push(`about ${seconds(now.eta_seconds)} to go`);
  const text = parts.join(" · ");
  if ($("state").textContent !== text) $("state").textContent = text;
  if (!view.words) notice(now.notice);
}

function guarded(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      notice(error.message);
    }
  };
}

$("search").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  view.words = $("words").value.trim();
  await (view.words ? search(view.words) : start());
}));
$("words").addEventListener("input", guarded(async () => {
  if (view.words && !$("words").value) {
    view.words = "";
    notice(null);
    await start();
  }
}));
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", guarded(async () => {
    view.show = button.dataset.show;
    view.words = $("words").value = "";
    for (const other of document.querySelectorAll("nav button"))
      other.setAttribute("aria-pressed", String(other === button));
    await start();
  }));
}
more.addEventListener("click", guarded(() => page(view.next)));
$("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

const events = new EventSource("/api/events");
let lost = false;
events.addEventListener("pictures", (event) => prepend(JSON.parse(event.data)));
events.addEventListener("state", (event) => state(JSON.parse(event.data)));
events.addEventListener("open", guarded(async () => {
  if (lost) {
    lost = false;
    notice(null);
    if (!view.words) await start(); // the pictures since the loss
  }
}));
events.addEventListener("error", () => {
  lost = true;
  notice("The gallery does not answer. Is it still running? This page goes on by itself once it is back.");
});
guarded(start)();
