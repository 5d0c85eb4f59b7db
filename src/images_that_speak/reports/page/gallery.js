const state = {query: "", filters: {}, sort: "", down: false, size: "large", seen: "", run: null};
const shown = {samples: DATA.samples};
const list = new List(
  $("#list"), (sample, index, total) => card(sample, {position: index + 1, total}), forget);

// --- the controls

function options(key) {
  const values = [...new Set(DATA.samples.map((sample) => valueOf(sample, key)))];
  return values.sort(compareValues);
}
function compareValues(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", {numeric: true});
}

/** Better first: few errors, a high CLIP. */
const FALLING = new Set(DATA.figures.filter(({falling}) => falling).map(({key}) => key));
const sortKeys = [...DATA.figures.map(({key, name}) => [key, name]), ["rank", "rank"], ["image_prompt", "image prompt"],
  ["audio_prompt", "audio prompt"], ["seed", "seed"], ["sample_id", "sample id"],
  ...DATA.keys.filter(({shown}) => shown).map(({key, short}) => [key, short])]
  .filter(([key]) => DATA.samples.some((sample) => (valueOf(sample, key) ?? null) !== null));

const filterKeys = [...DATA.keys.filter(({shown}) => shown).map(({key, short}) => [key, short]),
  ["image_prompt", "image prompt"], ["audio_prompt", "audio prompt"], ["seed", "seed"]]
  .filter(([key]) => { const count = options(key).length; return count > 1 && count <= 200; });

const search = $("#search");
const sort = $("#sort");
const direction = $("#direction");
sort.append(el("option", {value: ""}, "as made"),
  ...sortKeys.map(([key, name]) => el("option", {value: key}, name)));

const selects = new Map(filterKeys.map(([key, name]) => {
  const select = el("select", {}, el("option", {value: ""}, "any"),
    ...options(key).map((value) => el("option", {value: JSON.stringify(value)}, setting(value))));
  select.addEventListener("change", () => {
    if (select.value === "") delete state.filters[key];
    else state.filters[key] = select.value;
    update();
  });
  $("#filters").append(el("label", {}, el("span", {title: key}, name), select));
  return [key, select];
}));
$("#filters").hidden = selects.size === 0;
$("#keys").append(...KEYS.map((key) => el("code", {}, key)));

let typing;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.query = search.value; update(); }, 120);
});
sort.addEventListener("change", () => {
  state.sort = sort.value;
  state.down = FALLING.has(sort.value);
  update();
});
direction.addEventListener("click", () => { state.down = !state.down; update(); });
for (const button of document.querySelectorAll("[data-size]")) {
  button.addEventListener("click", () => { state.size = button.dataset.size; update(); });
}
const others = Object.entries({spectrogram, colour}).filter(([, find]) => DATA.samples.some(find))
  .map(([name]) => name);
for (const button of document.querySelectorAll("[data-seen]")) {
  const {seen} = button.dataset;
  button.hidden = !others.includes(seen);
  button.addEventListener("click", () => { state.seen = state.seen === seen ? "" : seen; update(); });
}
$("#clear").addEventListener("click", () => {
  Object.assign(state, {query: "", filters: {}, run: null});
  update();
  search.focus();
});

// --- what is shown

function update() {
  const {test, wrong} = parseQuery(state.query);
  const filters = Object.entries(state.filters).map(([key, text]) => [key, JSON.parse(text)]);
  shown.samples = DATA.samples.filter((sample) => (state.run === null || sample.run === state.run)
    && test(sample) && filters.every(([key, value]) => valueOf(sample, key) === value));
  if (state.sort) {
    const sign = state.down ? -1 : 1;
    const keyed = shown.samples.map((sample) => [valueOf(sample, state.sort) ?? null, sample]);
    // What has no value comes last, whichever way is up.
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null)
      : sign * compareValues(a, b)));
    shown.samples = keyed.map(([, sample]) => sample);
  }
  view.seen = state.seen;
  $("#list").dataset.size = state.size;
  list.show(shown.samples);
  const all = DATA.samples.length;
  $("#count").textContent = wrong.length ? wrong.join(", ") : shown.samples.length === all
    ? `${all} ${all === 1 ? "sample" : "samples"}` : `${shown.samples.length} of ${all} samples`;
  $("#count").classList.toggle("wrong", wrong.length > 0);
  $("#chosen").hidden = state.run === null;
  if (state.run !== null) {
    const run = DATA.runs[state.run];
    const facts = DATA.keys.flatMap(({short, shown: own}, index) => (
      own ? `${short} ${setting(run.values[index])}` : []));
    $("#chosen").replaceChildren("Only the run ", el("b", {}, facts.join(", ") || run.name));
  }
  $("#none").hidden = shown.samples.length > 0;
  reflect();
}

/** Show the state in the controls and in the address, so that a link or the back button finds it again. */
function reflect() {
  if (document.activeElement !== search) search.value = state.query;
  sort.value = state.sort;
  direction.disabled = !state.sort;
  direction.textContent = state.down ? "↓" : "↑";
  direction.setAttribute("aria-label",
    state.down ? "Falling; change to rising" : "Rising; change to falling");
  for (const [key, select] of selects) select.value = state.filters[key] ?? "";
  for (const button of document.querySelectorAll("[data-size]")) {
    button.setAttribute("aria-pressed", String(button.dataset.size === state.size));
  }
  for (const button of document.querySelectorAll("[data-seen]")) {
    button.setAttribute("aria-pressed", String(button.dataset.seen === state.seen));
  }
  $("#clear").hidden = !state.query && !Object.keys(state.filters).length && state.run === null;
  const hash = new URLSearchParams();
  if (state.query) hash.set("q", state.query);
  if (state.sort) hash.set("sort", (state.down ? "-" : "") + state.sort);
  if (state.size !== "large") hash.set("size", state.size);
  if (state.seen) hash.set(state.seen, "1");
  if (state.run !== null) hash.set("run", state.run);
  for (const [key, value] of Object.entries(state.filters)) hash.set(`=${key}`, value);
  const text = hash.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function restore() {
  const hash = new URLSearchParams(location.hash.slice(1));
  state.query = hash.get("q") ?? "";
  const wanted = hash.get("sort") ?? "";
  state.down = wanted.startsWith("-");
  state.sort = sortKeys.some(([key]) => key === wanted.replace(/^-/, "")) ? wanted.replace(/^-/, "") : "";
  state.size = ["large", "medium", "small"].includes(hash.get("size")) ? hash.get("size") : "large";
  state.seen = others.find((name) => hash.get(name) === "1") ?? "";
  state.run = hash.has("run") && DATA.runs[Number(hash.get("run"))] ? Number(hash.get("run")) : null;
  state.filters = Object.fromEntries([...selects.keys()].filter((key) => hash.has(`=${key}`))
    .map((key) => [key, hash.get(`=${key}`)]));
  update();
}
addEventListener("hashchange", restore);

// --- the keyboard

document.addEventListener("keydown", (event) => {
  const typingText = event.target.matches("input[type=search], select, textarea");
  if (event.key === "Escape") {
    if (event.target === search) search.blur();
    player.audio.pause();
  } else if (event.key === "/" && !typingText) {
    event.preventDefault();
    search.focus();
  } else if (!typingText && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const here = event.target.closest?.(".card");
    if (list.walk(event)) return;
    if (here && event.target === here && (event.key === " " || event.key === "Enter")) {
      event.preventDefault();
      player.toggle(here.sample);
    }
  }
});

restore();
