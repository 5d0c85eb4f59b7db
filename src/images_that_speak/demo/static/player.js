// One listener for the whole page: what is shown is replaced at every request.
(() => {
  const paint = (audio) => {
    const box = audio.closest(".spoken");
    if (!box) return;
    const at = audio.duration ? audio.currentTime / audio.duration : 0;
    const seek = box.querySelector(".seek");
    box.style.setProperty("--at", at);
    box.classList.toggle("playing", !audio.paused);
    box.classList.toggle("begun", !audio.paused || at > 0);
    box.querySelector(".play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    seek.value = at;
    seek.setAttribute("aria-valuetext", `${audio.currentTime.toFixed(1)} seconds`);
  };
  const follow = (audio) => {
    paint(audio);
    if (!audio.paused && audio.isConnected) requestAnimationFrame(() => follow(audio));
  };
  const soundOf = (node) => node.closest(".spoken").querySelector("audio");
  const toggle = (audio) => (audio.paused ? audio.play() : audio.pause());
  const on = (name, act) => document.addEventListener(name, act, true);
  for (const name of ["play", "pause", "ended", "seeked"])
    on(name, (event) => event.target.matches?.(".spoken audio") && follow(event.target));
  on("click", (event) => {
    const button = event.target.closest?.(".spoken .play");
    if (button) toggle(soundOf(button));
  });
  on("input", (event) => {
    if (!event.target.matches?.(".spoken .seek")) return;
    const audio = soundOf(event.target);
    if (audio.duration) audio.currentTime = event.target.value * audio.duration;
    paint(audio);
  });
  on("pointerup", (event) => event.target.matches?.(".spoken .seek") && soundOf(event.target).play());
  on("keydown", (event) => {
    if (!event.target.matches?.(".spoken .seek") || (event.key !== " " && event.key !== "Enter")) return;
    event.preventDefault();
    toggle(soundOf(event.target));
  });
})();
