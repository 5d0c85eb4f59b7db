// A picture comes in by drop, paste or choice; the worker (decoder.js) reads it and makes its sound piece by piece;
// Web Audio plays what is there already, and the bar follows its clock.
const $ = (selector) => document.querySelector(selector);
const RATE = 16000, BANDS = 256;
const LOUDEST = 0.9, MOST_GAIN = 1000;  // what is quiet is turned up, by at most 60 dB
const decoder = URL.createObjectURL(new Blob([$("#decoder").textContent], {type: "text/javascript"}));

const state = {name: "", read: null, speed: 1, wave: null, ready: 0, peak: 0, at: 0, autoplay: false};
const complete = () => state.wave !== null && state.ready === state.wave.length;
let worker = null, shown = null;

// --- making

/** Hand a job to a new worker: whatever the one before was doing is of no use any more. */
function give(job, answer) {
  worker?.terminate();
  worker = new Worker(decoder);
  worker.onmessage = ({data}) => answer(data);
  worker.onerror = (event) => {
    event.preventDefault();
    answer({error: "this browser ran out of memory, or cannot run it"});
  };
  worker.postMessage(job);
}

function open(file) {
  stop();
  worker?.terminate();
  const name = file.name || "pasted picture";
  complain("");
  say(`Reading ${name}`);
  give({file}, ({read, error}) => {
    if (error) {
      if (!state.read) return complain(`${name}: ${error}.`);
      complain(`${name}: ${error}. ${state.name} is still here.`);
      return complete() ? null : make();
    }
    Object.assign(state, {name, read, speed: Number($("#speed").value)});
    show(file);
    make(true);
  });
}

function show(file) {
  const {message, columns, width, height} = state.read, image = $(".picture img");
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  image.src = shown;
  image.alt = state.name;
  $(".picture").style.setProperty("--shape", width / height);
  const canvas = $(".picture canvas"), gray = new ImageData(columns, BANDS);
  canvas.width = columns;
  canvas.height = BANDS;
  for (let cell = 0; cell < message.length; cell++) {
    const level = Math.round(255 * message[cell]);
    gray.data.set([level, level, level, 255], 4 * cell);
  }
  canvas.getContext("2d").putImageData(gray, 0, 0);
  $("#name").textContent = state.name;
  $("#stage").hidden = false;
  document.body.classList.add("full");
}

/** Make the sound of the picture that was read; with `autoplay` it is heard as soon as a piece is there. */
function make(autoplay = false) {
  stop();
  const {message, columns} = state.read;
  Object.assign(state, {wave: null, ready: 0, peak: 0, at: 0, autoplay});
  const save = $("#save");
  if (save.href) URL.revokeObjectURL(save.href);
  for (const name of ["href", "download"]) save.removeAttribute(name);
  save.setAttribute("aria-disabled", "true");
  $("#progress").hidden = false;
  $("#progress").value = 0;
  $("#facts").textContent = "Making the sound …";
  say(`Making the sound of ${state.name}`);
  paint();
  give({message, columns, speed: state.speed}, (data) => {
    if (data.error) {
      $("#progress").hidden = true;
      $("#facts").textContent = "";
      return complain(`${state.name}: ${data.error}.`);
    }
    if (data.share !== undefined) $("#progress").value = data.share;
    if (data.samples) add(data);
  });
}

function add({samples, start, total}) {
  state.wave ??= new Float32Array(total);
  state.wave.set(samples, start);
  state.ready = start + samples.length;
  for (const sample of samples) state.peak = Math.max(state.peak, Math.abs(sample));
  if (complete()) finish();
  if (speaker.waiting) play();
  else if (speaker.running()) schedule(start, state.ready);
  else if (state.autoplay && audible()) play();
  state.autoplay = false;
  paint();
}

const audible = () => state.peak > 1e-6;

function finish() {
  const {columns, width, height} = state.read, save = $("#save"), seconds = state.wave.length / RATE;
  const facts = [`${width} × ${height}`, `played as ${columns} × ${BANDS}`, `${seconds.toFixed(2)} s`];
  if (!audible()) facts.push("black throughout, so it is silent");
  else if (state.peak > 1) facts.push(`turned down by ${decibels(state.peak)}, else it would be clipped`);
  else if (gain() > 1.4) facts.push(`played ${decibels(gain())} louder than the picture says; the file is not`);
  $("#facts").textContent = facts.join(" · ");
  $("#progress").hidden = true;
  save.href = URL.createObjectURL(new Blob([wav(state.wave, state.peak)], {type: "audio/wav"}));
  save.download = `${state.name.replace(/\.\w{1,5}$/, "") || "picture"}.wav`;
  save.removeAttribute("aria-disabled");
  say(`${state.name} is ready: ${seconds.toFixed(1)} seconds${audible() ? "" : " of silence"}`);
}

const decibels = (ratio) => `${Math.round(20 * Math.log10(ratio))} dB`;

/** PCM16 at the level of the picture; only what would be clipped is turned down. */
function wav(wave, peak) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length)), level = 32767 / Math.max(1, peak);
  const words = [[0, "RIFF"], [8, "WAVE"], [12, "fmt "], [36, "data"]];
  for (const [at, word] of words) [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  for (const [at, value] of [[4, 36 + 2 * wave.length], [16, 16], [24, RATE], [28, 2 * RATE], [40, 2 * wave.length]]) {
    view.setUint32(at, value, true);
  }
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) view.setUint16(at, value, true);
  for (let index = 0; index < wave.length; index++) view.setInt16(44 + 2 * index, Math.round(level * wave[index]), true);
  return view;
}

// --- playing

// `begun`: the context's time at which sample 0 sounds, or would have sounded. `waiting`: for a piece that is not made yet.
const speaker = {context: null, gain: null, sources: new Set(), begun: 0, waiting: false, running: () => speaker.sources.size > 0};
const gain = () => Math.min(MOST_GAIN, LOUDEST / Math.max(state.peak, 1e-9));

function contextOfSound() {
  if (!speaker.context) {
    // Not muted by an iPhone's switch.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    speaker.context = new AudioContext({sampleRate: RATE});
    speaker.gain = speaker.context.createGain();
    speaker.gain.connect(speaker.context.destination);
  }
  return speaker.context;
}

function play() {
  const context = contextOfSound();
  if (state.wave && state.at >= state.wave.length) state.at = 0;
  silence();
  speaker.waiting = state.at >= state.ready;
  if (!speaker.waiting) {
    speaker.begun = context.currentTime + 0.03 - state.at / RATE;
    schedule(state.at, state.ready);
  }
  // A browser lets a page sound once its visitor has clicked or pressed a key, which a drop is not.
  const silenced = () => {
    if (context.state === "running" || !speaker.running()) return;
    stop();
    say(`${state.name} is ready: press play`);
  };
  context.resume().catch(silenced);
  setTimeout(silenced, 400);
  follow();
}

/** Let the samples from `start` to `end` sound at their time. */
function schedule(start, end) {
  const {context} = speaker, buffer = context.createBuffer(1, end - start, RATE), source = context.createBufferSource();
  buffer.copyToChannel(state.wave.subarray(start, end), 0);
  source.buffer = buffer;
  source.connect(speaker.gain);
  if (speaker.running()) speaker.gain.gain.setTargetAtTime(gain(), context.currentTime, 0.1);
  else speaker.gain.gain.setValueAtTime(gain(), context.currentTime);
  source.start(speaker.begun + start / RATE);
  source.onended = () => {
    speaker.sources.delete(source);
    if (speaker.running()) return;
    state.at = end;
    speaker.waiting = !complete();
    if (!speaker.waiting) state.at = 0;
    paint();
  };
  speaker.sources.add(source);
}

function silence() {
  for (const source of speaker.sources) {
    source.onended = null;
    source.stop();
  }
  speaker.sources.clear();
}

/** The sample that is heard now: what the loudspeaker has not got yet does not count. */
function position() {
  if (!speaker.running()) return state.at;
  const {context} = speaker, late = context.outputLatency || context.baseLatency || 0;
  const at = (context.currentTime - late - speaker.begun) * RATE;
  return Math.round(Math.min(state.wave.length, Math.max(0, at)));
}

function stop() {
  state.at = position();
  speaker.waiting = false;
  silence();
  paint();
}

const playing = () => speaker.running() || speaker.waiting;
const toggle = () => playing() ? stop() : state.ready && play();

function seek(share) {
  if (!state.wave) return;
  const going = playing();
  stop();
  state.at = Math.round(share * state.wave.length);
  if (going) play();
  paint();
}

// --- showing

function paint() {
  const length = state.wave?.length ?? 0, at = position(), share = length ? at / length : 0, range = $(".seek");
  const seconds = (samples) => (samples / RATE).toFixed(1);
  $(".picture").style.setProperty("--at", share);
  $(".picture").classList.toggle("begun", playing() || at > 0);
  $("#clock").textContent = length ? `${seconds(at)} of ${seconds(length)} s${speaker.waiting ? ", waiting" : ""}` : "";
  range.value = share;
  range.disabled = !length;
  range.setAttribute("aria-valuetext", `${seconds(at)} of ${seconds(length)} seconds`);
  const button = $(".play");
  button.disabled = !state.ready;
  button.classList.toggle("playing", playing());
  button.setAttribute("aria-label", playing() ? "Pause" : "Play");
}

function follow() {
  paint();
  if (playing()) requestAnimationFrame(follow);
}

const say = (text) => { $("#status").textContent = text; };
function complain(text) {
  $("#wrong").hidden = !text;
  $("#wrong").textContent = text;
  if (text) say("");
}

// --- what a visitor does

function take(files, links) {
  const [file] = [...files].filter((each) => each.type.startsWith("image/")).concat([...files]);
  if (file) open(file);
  else if (links) complain("That is a link, and this page may not use the network: save the picture, then drop the file.");
}

$("#file").addEventListener("change", ({target}) => {
  take(target.files);
  target.value = "";  // so that the same file can be chosen again
});
let inside = 0;  // an element's children enter and leave too
const over = (change) => {
  inside = change ? Math.max(0, inside + change) : 0;
  document.body.classList.toggle("over", inside > 0);
};
addEventListener("dragenter", () => over(1));
addEventListener("dragleave", () => over(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over(0);
  take(event.dataTransfer.files, event.dataTransfer.types.length > 0);
});
addEventListener("paste", ({clipboardData}) => take(clipboardData.files, false));
$(".play").addEventListener("click", toggle);
$(".seek").addEventListener("input", ({target}) => seek(Number(target.value)));
$("#speed").addEventListener("change", ({target}) => {
  state.speed = Number(target.value);
  if (state.read) make(true);
});
$("#message").addEventListener("click", ({target}) => {
  const gray = target.getAttribute("aria-pressed") !== "true";
  target.setAttribute("aria-pressed", String(gray));
  $(".picture canvas").hidden = !gray;
});
addEventListener("keydown", (event) => {
  if (event.key !== " " || event.ctrlKey || event.metaKey || event.altKey || !state.ready) return;
  if (event.target.matches("button, a, select, summary, [type=file]")) return;
  event.preventDefault();
  if (!event.repeat) toggle();
});

for (const {name, picture} of JSON.parse($("#data").textContent).examples) {
  const button = document.createElement("button"), image = new Image(), caption = document.createElement("span");
  image.src = picture;
  image.alt = "";
  caption.textContent = name;
  button.type = "button";
  button.append(image, caption);
  button.addEventListener("click", () => {
    const [head, body] = picture.split(","), bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    open(new File([bytes], name, {type: head.slice(5, head.indexOf(";"))}));
  });
  $("#examples").append(button);
  $("#examples").hidden = false;
}
