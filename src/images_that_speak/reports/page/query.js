// The search field: words are looked for in prompts and in what was heard; key=value and so on compare.
const SAMPLE_KEYS = ["image_prompt", "audio_prompt", "seed", "run", "sample_id"];

function allKeys() {
  const scores = new Set(DATA.samples.flatMap((sample) => Object.keys(sample.scores)));
  return [...new Set([...scores, ...SAMPLE_KEYS, ...DATA.keys.map(({key}) => key), ...Object.keys(DATA.base)])];
}
const KEYS = allKeys();

/** The key that `name` means: itself, or the only one that ends in it. */
function resolveKey(name) {
  if (KEYS.includes(name)) return name;
  const found = KEYS.filter((key) => key.endsWith(`.${name}`));
  return found.length === 1 ? found[0] : null;
}

const COMPARE = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, ">": (a, b) => a > b,
  "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "~": (a, b) => String(a).includes(b),
};

function readValue(text) {
  if (/^-?[\d.]+(e-?\d+)?%$/i.test(text)) return Number(text.slice(0, -1)) / 100;
  if (text !== "" && !Number.isNaN(Number(text))) return Number(text);
  return {yes: true, true: true, no: false, false: false, none: null, null: null}[text.toLowerCase()] ?? (
    ["none", "null"].includes(text.toLowerCase()) ? null : text);
}

/** {test(sample), wrong}: `wrong` names what could not be understood. */
function parseQuery(text) {
  const tests = [];
  const wrong = [];
  for (const [, term] of text.matchAll(/((?:[^\s"]|"[^"]*")+)/g)) {
    const match = term.match(/^([\w./-]+?)(<=|>=|!=|=|<|>|~)(.*)$/);
    if (!match) {
      const words = term.replaceAll('"', "").toLowerCase();
      tests.push((sample) => `${sample.image} ${sample.audio} ${sample.scores.heard ?? ""} ${sample.id}`
        .toLowerCase().includes(words));
      continue;
    }
    const [, name, sign, right] = match;
    const key = resolveKey(name);
    if (key === null) {
      wrong.push(`there is no key “${name}”`);
      continue;
    }
    const value = sign === "~" ? right.replaceAll('"', "") : readValue(right.replaceAll('"', ""));
    tests.push((sample) => {
      const found = valueOf(sample, key);
      if ((found === null || value === null) && !["=", "!="].includes(sign)) return false;
      return COMPARE[sign](found, value);
    });
  }
  return {test: (sample) => tests.every((one) => one(sample)), wrong};
}
