// One row for each sample_id, and in it the sample of every run that has it.
const groups = [...DATA.samples.reduce((map, sample) => {
  if (!map.has(sample.id)) map.set(sample.id, {id: sample.id, samples: DATA.runs.map(() => null)});
  map.get(sample.id).samples[sample.run] = sample;
  return map;
}, new Map()).values()];
const present = (group) => group.samples.filter(Boolean);

function row(group, index, total) {
  const first = present(group)[0];
  const cells = group.samples.map((sample, run) => (sample ? card(sample, {label: DATA.letters[run]})
    : el("div", {class: "card"}, el("p", {class: `label letter run-${DATA.letters[run]}`}, DATA.letters[run]),
      el("figure", {class: "picture gone"}), el("p", {class: "quiet"}, "not in this run"))));
  return el("article", {class: "row", tabindex: 0, "aria-posinset": index + 1, "aria-setsize": total,
    "aria-label": `${first.image ?? "picture"}; says: ${first.audio ?? "nothing known"}`}, ...cells);
}
$("#list").style.setProperty("--runs", DATA.runs.length);
const list = new List($("#list"), row, (group) => present(group).forEach(forget));

/** How far apart the runs are in a score. */
function range(group, key) {
  const values = present(group).map((sample) => sample.scores[key]).filter((value) => typeof value === "number");
  return values.length < 2 ? -1 : Math.max(...values) - Math.min(...values);
}

function update() {
  const {test, wrong} = parseQuery($("#search").value);
  const differ = $("#differ").checked;
  const shown = groups.filter((group) => present(group).some(test)
    && (!differ || new Set(present(group).map((sample) => sample.scores.heard)).size > 1));
  const by = $("#sort").value;
  if (by === "wer" || by === "clip") shown.sort((a, b) => range(b, by) - range(a, by));
  else if (by) shown.sort((a, b) => String(present(a)[0][by]).localeCompare(String(present(b)[0][by]), "en"));
  list.show(shown);
  $("#count").textContent = wrong.length ? wrong.join(", ") : shown.length === groups.length
    ? `${groups.length} samples` : `${shown.length} of ${groups.length} samples`;
  $("#count").classList.toggle("wrong", wrong.length > 0);
  $("#none").hidden = shown.length > 0;
}

let typing;
$("#search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(update, 120); });
for (const control of [$("#sort"), $("#differ")]) control.addEventListener("change", update);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") player.audio.pause();
  else if (event.target.matches("input[type=search], select")) return;
  else if (event.key === "/") {
    event.preventDefault();
    $("#search").focus();
  } else if (event.ctrlKey || event.metaKey || event.altKey || list.walk(event)) return;
  else if ((event.key === " " || event.key === "Enter") && event.target.sample) {
    event.preventDefault();
    player.toggle(event.target.sample);
  }
});
update();
