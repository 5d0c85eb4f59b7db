const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);

/** An element: el("p", {class: "x"}, "text", child, …). What is null, and attributes that are false, are left out. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== false && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Give a figure the shape of its picture, width by height, where that is not the usual one. */
function shape(figure, ratio) {
  if (!ratio || Math.abs(ratio - 4) < 0.01) return figure;
  figure.classList.add("own");
  figure.style.setProperty("--ratio", ratio);
  return figure;
}

const percent = (rate) => `${(100 * rate).toFixed(Number.isInteger(Math.round(1e6 * rate) / 1e4) ? 0 : 1)} %`;
const figure = (value) => (Number.isInteger(value) ? String(value)
  : value.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "")).replace("-", "−");
const setting = (value) => (value === null || value === undefined ? "none" : value === true ? "yes"
  : value === false ? "no" : String(value));

const picture = (sample) => sample.picture ?? `${DATA.runs[sample.run].base}/${sample.id}/image.png`;
const spectrogram = (sample) => (sample.spectrogram === undefined && !sample.picture
  ? `${DATA.runs[sample.run].base}/${sample.id}/spectrogram.png` : sample.spectrogram ?? null);
const colour = (sample) => (sample.colour === true
  ? `${DATA.runs[sample.run].base}/${sample.id}/colour.png` : sample.colour ?? null);
const sound = (sample) => (sample.sound === undefined
  ? `${DATA.runs[sample.run].base}/${sample.id}/speech.wav` : sample.sound);

/** What a sample says of a key: a score, its prompts, its seed, or a setting of its run. */
function valueOf(sample, key) {
  if (key in sample.scores) return sample.scores[key];
  if (key === "image_prompt") return sample.image;
  if (key === "audio_prompt") return sample.audio;
  if (key === "sample_id") return sample.id;
  if (key === "seed") return sample.seed;
  const run = DATA.runs[sample.run];
  if (key === "run") return run.name;
  const index = DATA.keys.findIndex((known) => known.key === key);
  return index >= 0 ? run.values[index] : DATA.base[key] ?? null;
}
