// One question at a time: two sides, a choice by mouse or keyboard, and the answers as a file at the end.
// Each rater's own, for several may share a browser.
const placeOf = (rater) => `study-${DATA.study}-${rater}`;
const audio = el("audio");
const state = {rater: null, answers: [], heard: new Set(), playing: null, since: 0};
document.body.append(audio);

/** What the rater answered before the page was closed; browsers may forbid to keep it. */
function stored() {
  try {
    return JSON.parse(localStorage.getItem(placeOf(state.rater)) ?? "[]");
  } catch {
    return [];
  }
}
function store() {
  try {
    localStorage.setItem(placeOf(state.rater), JSON.stringify(state.answers));
  } catch { /* the answers are still in the page */ }
}

const current = () => DATA.trials[state.answers.length];
const side = (name) => $(`[data-side="${name}"]`);

function show() {
  audio.pause();
  Object.assign(state, {heard: new Set(), playing: null, since: performance.now()});
  const trial = current();
  $("#begin").hidden = true;
  $("#trial").hidden = !trial;
  $("#end").hidden = Boolean(trial);
  if (!trial) {
    $("#end h2").focus();
    return;
  }
  $("#progress").textContent = `${state.answers.length + 1} of ${DATA.trials.length}`;
  $("#question").textContent = trial.text;
  $("#hint").textContent = "";
  $("#back").disabled = !state.answers.length;
  for (const [name, number, key] of [["left", "1", "q"], ["right", "2", "w"]]) {
    const {picture, sound} = trial[name];
    side(name).replaceChildren(...[
      picture === undefined ? null : el("figure", {class: "picture"},
        el("img", {src: DATA.media[picture], alt: `The ${name} picture`, onload: ({target}) =>
          shape(target.parentElement, target.naturalWidth / target.naturalHeight)})),
      sound === undefined ? null : el("button", {type: "button", class: "hear", onclick: () => play(name)},
        "Play ", el("kbd", {}, key)),
      el("button", {type: "button", class: "choose", onclick: () => choose(name)}, `The ${name} one `,
        el("kbd", {}, number))].filter(Boolean));
  }
  $("#question").focus();
}

function play(name) {
  const sound = current()?.[name].sound;
  if (sound === undefined) return;
  const again = state.playing === name && !audio.paused;
  if (again) return audio.pause();
  if (state.playing !== name || audio.ended) audio.src = DATA.media[sound];
  state.playing = name;
  audio.play().catch((error) => {
    if (error.name !== "AbortError") $("#hint").textContent = "The sound cannot be played.";
  });
}
audio.addEventListener("playing", () => state.heard.add(state.playing));
for (const event of ["playing", "pause", "ended"]) {
  audio.addEventListener(event, () => {
    for (const name of ["left", "right"]) {
      const button = $(".hear", side(name));
      if (button) button.firstChild.textContent = state.playing === name && !audio.paused ? "Pause " : "Play ";
    }
  });
}

function choose(name) {
  const trial = current();
  if (!trial) return;
  const unheard = ["left", "right"].filter((each) => trial[each].sound !== undefined && !state.heard.has(each));
  if (unheard.length) {
    $("#hint").textContent = `Please listen to the ${unheard.join(" and the ")} one first.`;
    return;
  }
  state.answers.push({trial: trial.trial, choice: name, seconds: Math.round((performance.now() - state.since) / 100) / 10});
  store();
  show();
}

function back() {
  if (!state.answers.length) return;
  state.answers.pop();
  store();
  show();
}

$("#begin").addEventListener("submit", (event) => {
  event.preventDefault();
  state.rater = $("#rater").value.trim();
  if (!state.rater) return;
  state.answers = stored();
  show();
});
$("#back").addEventListener("click", back);
$("#save").addEventListener("click", () => {
  const text = JSON.stringify({study: DATA.study, rater: state.rater, answers: state.answers}, null, 2);
  const name = `answers-${DATA.study}-${state.rater.replace(/[^\p{L}\p{N}]+/gu, "_")}.json`;
  const link = el("a", {href: URL.createObjectURL(new Blob([text], {type: "application/json"})), download: name});
  link.click();
  URL.revokeObjectURL(link.href);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("#trial").hidden) return;
  const actions = {ArrowLeft: () => choose("left"), 1: () => choose("left"), ArrowRight: () => choose("right"),
    2: () => choose("right"), q: () => play("left"), w: () => play("right"), u: back};
  if (event.repeat || !(event.key in actions)) return;
  event.preventDefault();
  actions[event.key]();
});
