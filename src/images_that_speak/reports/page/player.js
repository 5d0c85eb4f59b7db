// One sound at a time, for the whole page. The play-head of its picture follows the sound's own clock.
const player = {
  audio: el("audio", {preload: "none"}),
  sample: null,
  pending: null, // where to begin once the sound's length is known, 0 to 1
  cards: new Map(), // sample → the parts of its card, while it is on the page
};
document.body.append(player.audio);

player.at = () => player.pending
  ?? (player.audio.duration ? player.audio.currentTime / player.audio.duration : 0);
player.playing = (sample) => player.sample === sample && !player.audio.paused;

player.load = (sample) => {
  if (player.sample === sample) return;
  const before = player.sample;
  player.audio.pause();
  player.sample = sample;
  player.pending = null;
  player.audio.src = sound(sample);
  if (before) player.paint(before);
};
player.play = (sample) => {
  player.load(sample);
  if (player.audio.ended) player.audio.currentTime = 0;
  player.audio.play().catch((error) => {
    if (error.name !== "AbortError") player.complain(sample);
  });
};
player.toggle = (sample) => (player.playing(sample) ? player.audio.pause() : player.play(sample));
/** Go to a place, 0 to 1, of the sound of `sample`. */
player.seek = (sample, at) => {
  player.load(sample);
  if (player.audio.duration) player.audio.currentTime = at * player.audio.duration;
  else {
    player.pending = at;
    player.audio.preload = "metadata";
    player.audio.load();
  }
  player.paint(sample);
};
player.complain = (sample) => {
  const parts = player.cards.get(sample);
  if (parts) parts.clock.textContent = "the sound cannot be read";
};

/** Show what the sound is doing on the card of `sample`. */
player.paint = (sample) => {
  const parts = player.cards.get(sample);
  if (!parts) return;
  const mine = player.sample === sample;
  const at = mine ? player.at() : 0;
  const seconds = mine && player.audio.duration ? player.audio.duration : 10.24;
  const playing = player.playing(sample);
  parts.figure.style.setProperty("--at", at);
  parts.figure.classList.toggle("begun", mine && (playing || at > 0));
  parts.seek.value = at;
  parts.seek.setAttribute("aria-valuetext", `${(at * seconds).toFixed(1)} of ${seconds.toFixed(1)} seconds`);
  parts.clock.textContent = mine && (playing || at > 0) ? `${(at * seconds).toFixed(1)} s` : "";
  if (parts.playing !== playing) {
    parts.playing = playing;
    parts.button.classList.toggle("playing", playing);
    parts.button.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
};
player.follow = () => {
  if (!player.sample) return;
  player.paint(player.sample);
  if (!player.audio.paused) requestAnimationFrame(player.follow);
};
for (const event of ["play", "pause", "ended", "seeked"]) player.audio.addEventListener(event, player.follow);
player.audio.addEventListener("error", () => player.sample && player.complain(player.sample));
player.audio.addEventListener("loadedmetadata", () => {
  if (player.pending === null) return;
  player.audio.currentTime = player.pending * player.audio.duration;
  player.pending = null;
});
