const view = {seen: ""}; // "spectrogram" or "colour" in place of the picture

const ICONS = '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="go" d="M8 5.5v13l10.5-6.5z"/>'
  + '<path class="stay" d="M7 5.5h3.6v13H7zm6.4 0H17v13h-3.6z"/></svg>';

/** What was asked for over what was heard, word by word; and the same as a sentence for who listens. */
function wordsOf(sample) {
  if (!sample.words) return el("p", {class: "words"}, sample.audio ?? "");
  const said = {s: (a, b) => `${b} for ${a}`, d: (a) => `${a} not heard`, i: (a, b) => `${b} heard besides`};
  const wrong = sample.words.filter(([kind]) => kind !== "=").map(([kind, a, b]) => said[kind](a, b));
  const sentence = `Asked: ${sample.audio}. Heard: ${sample.scores.heard || "nothing"}. `
    + (wrong.length ? `Wrong: ${wrong.join("; ")}.` : "Every word right.");
  const pairs = sample.words.map(([kind, asked, heard]) => el("span", {class: `word ${KIND[kind]}`},
    el("span", {class: "a"}, asked || " "), el("span", {class: "h"}, kind === "d" ? "–" : heard)));
  return el("div", {class: "words"}, el("p", {class: "unseen"}, sentence),
    el("div", {class: "pairs", "aria-hidden": "true"}, ...pairs));
}
const KIND = {"=": "right", s: "substituted", d: "deleted", i: "inserted"};

function scoresOf(sample) {
  const scores = sample.scores;
  const list = el("dl", {class: "scores"});
  const add = (name, value, kind = "") => list.append(
    el("div", {class: kind}, el("dt", {}, name), el("dd", {}, value)));
  if (scores.wer !== undefined) add("WER", percent(scores.wer));
  if (scores.second_wer !== undefined) add("2nd judge", percent(scores.second_wer));
  if (scores.clip !== undefined) add("CLIP", figure(scores.clip));
  for (const {key, name, measured} of DATA.figures ?? []) {
    if (measured && scores[key] !== undefined) add(name, figure(scores[key]));
  }
  if (scores.rank !== undefined) add("rank", scores.rank);
  if (scores.joint) add("joint", "success", "good");
  if (scores.wer === undefined && scores.clip === undefined) {
    list.append(el("div", {}, el("dd", {}, "not read back")));
  }
  return list;
}

/** A sample: its picture with the play-head over it, what was asked for and heard, scores, settings. */
function card(sample, {position = 0, total = 0, label = null} = {}) {
  const run = DATA.runs[sample.run];
  const silent = sound(sample) === null;
  const seek = el("input", {type: "range", class: "seek", min: 0, max: 1, step: 0.005, value: 0,
    disabled: silent, "aria-label": "Place in the sound; space plays"});
  const source = {spectrogram, colour}[view.seen]?.(sample) ?? picture(sample);
  const image = el("img", {src: source, alt: `Picture for “${sample.image ?? "no prompt"}”`, width: 1024,
    height: Math.round(1024 / (sample.ratio ?? 4)), decoding: "async", onerror: () => frame.classList.add("missing")});
  const clock = el("span", {class: "clock", "aria-hidden": "true"});
  const frame = shape(el("figure", {class: "picture"}, image, el("i", {class: "head"}), seek, clock),
    sample.ratio);
  const button = el("button", {class: "play", type: "button", "aria-label": "Play", disabled: silent,
    title: silent ? "no sound file" : null, onclick: () => player.toggle(sample)});
  button.innerHTML = ICONS;
  seek.addEventListener("input", () => player.seek(sample, Number(seek.value)));
  // A click on the picture plays from there; arrow keys only move.
  seek.addEventListener("pointerup", () => player.play(sample));
  seek.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    player.toggle(sample);
  });
  const settings = DATA.keys.map(({key, short, shown}, index) => (shown
    ? el("span", {title: key}, `${short} `, el("b", {}, setting(run.values[index]))) : null)).filter(Boolean);
  const {taken_for: other, top1} = sample.scores;
  const taken = other && top1 === false && other !== sample.image
    ? el("p", {class: "taken"}, `taken for ${other}`) : null;
  const node = el("article", {class: "card", tabindex: 0,
    "aria-posinset": position || null, "aria-setsize": total || null,
    "aria-label": `${sample.image ?? "picture"}; says: ${sample.audio ?? "nothing known"}`},
    label ? el("p", {class: `label letter run-${label}`}, label) : null, frame,
    el("div", {class: "below"}, button,
      el("div", {class: "shown"}, el("p", {class: "asked"}, sample.image ?? "no image prompt"), taken),
      el("div", {class: "figures"}, scoresOf(sample)),
      wordsOf(sample),
      el("p", {class: "settings"}, ...settings,
        sample.seed === null ? null : el("span", {}, "seed ", el("b", {}, sample.seed)),
        el("span", {class: "id", title: run.name}, sample.id))));
  node.sample = sample;
  player.cards.set(sample, {figure: frame, seek, button, clock, playing: false});
  player.paint(sample);
  return node;
}
const forget = (sample) => player.cards.delete(sample);
