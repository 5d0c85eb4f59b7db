// A picture as sound, in a worker. What is read and how it is played is what audio/ says: 8-bit luminance,
// averaged over areas to 256 rows; a row is a band, a column 10 ms; fast Griffin-Lim on the magnitudes that the
// pseudo-inverse of the mel filters gives.
const GROUND = "#000";  // what lies under transparent pixels: black, which is silence
const BANDS = 256, RATE = 16000, HOP = 160, WINDOW = 1024, SIZE = 2048, BINS = SIZE / 2 + 1;
const FLOOR = Math.log(1e-5), RANGE = Math.log(200 / 1e-5);  // nats: black, and from black to white
const ITERATIONS = 32, MOMENTUM = 0.99 / 1.99;  // as torchaudio counts it
const LONGEST = 600;  // seconds
const MOST = 100e6;  // pixels; a browser takes 4 bytes of memory for each
// Frames. Longer sounds are made in pieces. A piece begins with frames of the one before: their phases are where it sets
// out from, and the sound of the first of them stays, so that nothing jumps; the rest may still give way to what comes.
const WHOLE = 1200, PIECE = 400, SHARED = 48, KEPT = 8;
// The pixels as they stand in the file; browsers turn them as EXIF says without being asked.
const BITMAP = {colorSpaceConversion: "none"};

class Unplayable extends Error {}

// --- the picture

/** What a file says it is: {kind, width, height, whole}, as far as its first bytes tell; {} of other files. */
function describe(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), length = bytes.length;
  const text = (at, count) => String.fromCharCode(...bytes.subarray(at, at + count));
  const has = (mark, from) => {
    for (let at = length - mark.length; at >= from; at--) {
      if (mark.every((byte, index) => bytes[at + index] === byte)) return true;
    }
    return false;
  };
  if (length > 24 && text(1, 3) === "PNG") {
    return {kind: "png", width: view.getUint32(16), height: view.getUint32(20),
      whole: has([73, 69, 78, 68, 0xae, 0x42, 0x60, 0x82], 24)};
  }
  if (length > 4 && bytes[0] === 0xff && bytes[1] === 0xd8) {
    for (let at = 2; at + 9 < length;) {
      const mark = bytes[at + 1], frame = mark >= 0xc0 && mark <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(mark);
      if (bytes[at] !== 0xff) break;
      if (frame) {
        return {kind: "jpg", width: view.getUint16(at + 7), height: view.getUint16(at + 5), whole: has([0xff, 0xd9], at)};
      }
      at += mark === 0xff ? 1 : 2 + view.getUint16(at + 2);
    }
    return {kind: "jpg", whole: false};
  }
  if (length > 12 && text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
    const small = (at) => view.getUint16(at, true) & 0x3fff, wide = (at) => 1 + (view.getUint32(at, true) & 0xffffff);
    const [width, height] = length < 30 ? [] : {"VP8X": () => [wide(24), 1 + (view.getUint32(26, true) >>> 8)], "VP8 ": () => [small(26), small(28)],
      "VP8L": () => [1 + small(21), 1 + (view.getUint32(21, true) >>> 14 & 0x3fff)]}[text(12, 4)]?.() ?? [];
    return {kind: "webp", width, height, whole: view.getUint32(4, true) + 8 <= length};
  }
  if (length > 10 && text(0, 3) === "GIF") {
    return {kind: "gif", width: view.getUint16(6, true), height: view.getUint16(8, true), whole: bytes[length - 1] === 0x3b};
  }
  if (length > 26 && text(0, 2) === "BM") {
    return {kind: "bmp", width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true))};
  }
  return {};
}

/** Overlaps of n cells with m cells over the same length: {from, to, share}, shares of one `to` sum to 1. */
function overlaps(n, m) {
  const from = [], to = [], share = [];
  for (let i = 0, k = 0; i < n && k < m;) {
    const start = Math.max(i * m, k * n), end = Math.min((i + 1) * m, (k + 1) * n);
    from.push(i);
    to.push(k);
    share.push((end - start) / n);
    if ((i + 1) * m === end) i++;
    if ((k + 1) * n === end) k++;
  }
  return {from, to, share};
}

/** As Python rounds: a half goes to the even neighbour. */
function rounded(value) {
  const below = Math.floor(value), part = value - below;
  return part < 0.5 || (part === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** A file → {message: Float32Array (BANDS × columns) in [0, 1], row 0 on top, columns, width, height}. */
async function readPicture(file) {
  const told = describe(new Uint8Array(await file.arrayBuffer()));
  const large = (width, height) => {
    if (width * height <= MOST) return;
    const share = Math.min(1, 1024 / height);
    throw new Unplayable(`it has ${width} × ${height} = ${Math.round(width * height / 1e6)} megapixels, and a browser `
      + `may not survive more than ${MOST / 1e6}. Scale it to ${Math.round(width * share)} × `
      + `${Math.round(height * share)}: more than 256 rows are not heard`);
  };
  if (!file.size) throw new Unplayable("the file is empty");
  if (told.whole === false) throw new Unplayable(`the ${told.kind} ends too early: only a part of the file is here`);
  if (told.width) large(told.width, told.height);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, BITMAP);
  } catch {
    throw new Unplayable(told.kind ? `the ${told.kind} is damaged, and cannot be shown`
      : "not a picture that this browser can show (expected png, jpg, webp, gif, bmp or avif)");
  }
  const {width, height} = bitmap, columns = Math.max(1, rounded(width * BANDS / height));
  large(width, height);
  const seconds = columns * HOP / RATE;
  if (seconds > LONGEST) {
    throw new Unplayable(`at ${width} × ${height} it would sound for ${Math.round(seconds)} seconds (expected at most `
      + `${LONGEST}): cut it into shorter pictures`);
  }
  const message = new Float32Array(BANDS * columns), across = overlaps(width, columns), down = overlaps(height, BANDS);
  const tileWidth = Math.min(width, 4096), tileHeight = Math.min(height, 64);
  const canvas = new OffscreenCanvas(tileWidth, tileHeight), context = canvas.getContext("2d", {willReadFrequently: true});
  const row = new Float64Array(columns), gray = width * height <= MOST_SEARCHED ? new Uint8Array(width * height) : null;
  context.fillStyle = GROUND;
  for (let left = 0, first = 0; left < width; left += tileWidth) {
    const wide = Math.min(tileWidth, width - left);
    let last = first;
    while (last < across.from.length && across.from[last] < left + wide) last++;
    for (let top = 0, next = 0; top < height; top += tileHeight) {
      const high = Math.min(tileHeight, height - top);
      context.fillRect(0, 0, wide, high);
      context.drawImage(bitmap, left, top, wide, high, 0, 0, wide, high);
      const {data} = context.getImageData(0, 0, wide, high);
      for (let y = 0; y < high; y++) {
        row.fill(0);
        for (let each = first; each < last; each++) {
          const x = across.from[each], at = 4 * (y * wide + x - left);
          // The integers of Pillow's convert("L").
          const level = (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2] + 32768) >> 16;
          row[across.to[each]] += across.share[each] * level;
          if (gray) gray[(top + y) * width + x] = level;
        }
        for (; next < down.from.length && down.from[next] === top + y; next++) {
          const share = down.share[next] / 255, start = down.to[next] * columns;
          for (let k = across.to[first]; k <= across.to[last - 1]; k++) message[start + k] += share * row[k];
        }
      }
    }
    first = last;
  }
  bitmap.close();
  const grid = gray && findGrid(gray, width, height);
  if (!grid) return {message, columns, width, height};
  const cells = isPlain(grid, width, height) ? message : readCells(gray, width, height, grid);
  return {...wholePrint(cells, grid) ?? {message, columns}, width, height};
}

// --- mel → magnitudes

const hertz = (mel) => mel < 15 ? mel * 200 / 3 : 1000 * Math.exp((mel - 15) * Math.log(6.4) / 27);

/** Slaney's triangles, of equal area: a list of {first, weights} over the bins. */
function melFilters() {
  const top = 15 + 27 * Math.log(RATE / 2 / 1000) / Math.log(6.4);
  const edge = Array.from({length: BANDS + 2}, (_, index) => hertz(top * index / (BANDS + 1)));
  return edge.slice(0, BANDS).map((low, band) => {
    const middle = edge[band + 1], high = edge[band + 2], step = RATE / SIZE, first = Math.ceil(low / step);
    const weights = [];
    for (let bin = first; bin < BINS && bin * step < high; bin++) {
      const at = bin * step;
      weights.push(Math.max(0, Math.min((at - low) / (middle - low), (high - at) / (high - middle))) * 2 / (high - low));
    }
    return {first, weights};
  });
}

/**
 * mel of one frame → magnitudes: the pseudo-inverse Fᵀ(FFᵀ)⁻¹, clamped at 0. A triangle overlaps its two neighbours
 * and no others, so FFᵀ has three diagonals, and solving it takes a few hundred operations instead of a matrix.
 */
function makeInverse() {
  const filters = melFilters(), weight = ({first, weights}, bin) => weights[bin - first] ?? 0;
  const dot = (a, b) => a.weights.reduce((sum, value, index) => sum + value * weight(b, a.first + index), 0);
  const beside = filters.map((filter, band) => band + 1 < BANDS ? dot(filter, filters[band + 1]) : 0);
  const pivot = new Float64Array(BANDS), ratio = new Float64Array(BANDS), solved = new Float64Array(BANDS);
  for (let band = 0; band < BANDS; band++) {
    ratio[band] = band ? beside[band - 1] / pivot[band - 1] : 0;
    pivot[band] = dot(filters[band], filters[band]) - (band ? ratio[band] * beside[band - 1] : 0);
  }
  const total = new Float64Array(BINS);
  return (mel, magnitude, offset) => {
    for (let band = 0; band < BANDS; band++) solved[band] = mel[band] - (band ? ratio[band] * solved[band - 1] : 0);
    total.fill(0);
    for (let band = BANDS - 1; band >= 0; band--) {
      solved[band] = (solved[band] - (band + 1 < BANDS ? beside[band] * solved[band + 1] : 0)) / pivot[band];
      const {first, weights} = filters[band];
      for (let index = 0; index < weights.length; index++) total[first + index] += weights[index] * solved[band];
    }
    for (let bin = 0; bin < BINS; bin++) magnitude[offset + bin] = Math.max(0, total[bin]);
  };
}

// --- magnitudes → sound

const transform = fourier(SIZE);  // with the parts exchanged it is the inverse, SIZE times as large
const hann = Float64Array.from({length: WINDOW}, (_, index) => 0.5 - 0.5 * Math.cos(2 * Math.PI * index / WINDOW));
const re = new Float64Array(SIZE), im = new Float64Array(SIZE), EDGE = (SIZE - WINDOW) / 2, HALF = WINDOW / 2;

/** Numbers in [0, 1), the same ones each time (mulberry32). */
function random() {
  let state = 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Fast Griffin-Lim (Perraudin et al. 2013): magnitudes (frames × BINS), frame t centred at t · HOP → (frames − 1) · HOP
 * samples, with HALF more before them and after. `known` are the first of these, where they are settled already, and
 * `begun` phases that the first frames set out from; others set out from chance. Returns {wave, ending}, the phases of
 * the last SHARED frames.
 */
function griffinLim(magnitude, frames, known, begun, tell) {
  const cells = frames * BINS, draw = random(), span = (frames - 1) * HOP, wave = new Float64Array(span + WINDOW);
  const [phaseRe, phaseIm, oldRe, oldIm] = Array.from({length: 4}, () => new Float32Array(cells));
  for (let cell = 0; cell < cells; cell++) {
    phaseRe[cell] = draw();
    phaseIm[cell] = draw();
  }
  if (begun) {
    phaseRe.set(begun.re);
    phaseIm.set(begun.im);
  }
  const weight = new Float64Array(span + WINDOW);
  for (let frame = 0; frame < frames; frame++) {
    for (let index = 0; index < WINDOW; index++) weight[frame * HOP + index] += hann[index] ** 2;
  }

  // Two real frames share one complex transform.
  const toWave = () => {
    wave.fill(0);
    for (let frame = 0; frame < frames; frame += 2) {
      const a = frame * BINS, b = a + BINS, two = frame + 1 < frames;
      for (let bin = 0; bin < BINS; bin++) {
        const inner = bin > 0 && bin < BINS - 1, scaleA = magnitude[a + bin], scaleB = two ? magnitude[b + bin] : 0;
        const reA = scaleA * phaseRe[a + bin], imA = inner ? scaleA * phaseIm[a + bin] : 0;
        const reB = two ? scaleB * phaseRe[b + bin] : 0, imB = two && inner ? scaleB * phaseIm[b + bin] : 0;
        re[bin] = reA - imB;
        im[bin] = imA + reB;
        if (inner) {
          re[SIZE - bin] = reA + imB;
          im[SIZE - bin] = reB - imA;
        }
      }
      transform(im, re);
      const start = frame * HOP;
      for (let index = 0; index < WINDOW; index++) wave[start + index] += hann[index] * re[EDGE + index] / SIZE;
      for (let index = 0; two && index < WINDOW; index++) {
        wave[start + HOP + index] += hann[index] * im[EDGE + index] / SIZE;
      }
    }
    for (let index = 0; index < wave.length; index++) wave[index] /= Math.max(weight[index], 1e-11);
    for (let index = 1; index <= HALF; index++) {  // reflected at either end
      wave[HALF - index] = wave[HALF + index];
      wave[HALF + span - 1 + index] = wave[HALF + span - 1 - index];
    }
    if (known) wave.set(known);
  };

  const toPhase = () => {
    for (let frame = 0; frame < frames; frame += 2) {
      const start = frame * HOP, two = frame + 1 < frames;
      re.fill(0);
      im.fill(0);
      for (let index = 0; index < WINDOW; index++) {
        re[EDGE + index] = hann[index] * wave[start + index];
        if (two) im[EDGE + index] = hann[index] * wave[start + HOP + index];
      }
      transform(re, im);
      for (let bin = 0; bin < BINS; bin++) {
        const other = bin ? SIZE - bin : 0, a = frame * BINS + bin;
        turn(a, (re[bin] + re[other]) / 2, (im[bin] - im[other]) / 2);
        if (two) turn(a + BINS, (im[bin] + im[other]) / 2, (re[other] - re[bin]) / 2);
      }
    }
  };
  const turn = (cell, newRe, newIm) => {
    const x = newRe - MOMENTUM * oldRe[cell], y = newIm - MOMENTUM * oldIm[cell], length = Math.sqrt(x * x + y * y) + 1e-16;
    phaseRe[cell] = x / length;
    phaseIm[cell] = y / length;
    oldRe[cell] = newRe;
    oldIm[cell] = newIm;
  };

  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    toWave();
    toPhase();
    tell((iteration + 1) / (ITERATIONS + 1));
  }
  toWave();
  const last = Math.max(0, frames - SHARED) * BINS;
  return {wave, ending: {re: phaseRe.slice(last), im: phaseIm.slice(last)}};
}

/** Frame `at` (it may lie between two) of the message → mel, at `mel`; what lies at the floor is silence. */
function melAt(message, columns, at, mel) {
  const place = Math.min(columns - 1, Math.max(0, at)), left = Math.floor(place), part = place - left;
  const right = Math.min(columns - 1, left + 1);
  for (let band = 0; band < BANDS; band++) {
    const row = (BANDS - 1 - band) * columns, light = message[row + left] * (1 - part) + message[row + right] * part;
    mel[band] = light * RANGE <= 1e-4 ? 0 : Math.exp(FLOOR + light * RANGE);
  }
}

/**
 * Make the sound of a message, `speed` times as fast at the same pitch; `send(samples, start, total)` gets it piece by
 * piece, `tell(share)` how far it is.
 */
function speak(message, columns, speed, send, tell) {
  const frames = Math.max(1, rounded(columns / speed)), total = frames * HOP, inverse = makeInverse();
  // A frame of ours is centred half a hop later than t · HOP: one more at either end, and half a hop is cut.
  // Less than 16 frames have nothing to be reflected into.
  const all = Math.max(16, frames + 2), mel = new Float64Array(BANDS), cut = HOP / 2;
  const magnitudes = (from, to) => {
    const found = new Float32Array((to - from) * BINS);
    for (let frame = from; frame < to; frame++) {
      if (frame > frames + 1) break;  // silence
      melAt(message, columns, (Math.min(frames - 1, Math.max(0, frame - 1)) + 0.5) * speed - 0.5, mel);
      inverse(mel, found, (frame - from) * BINS);
    }
    return found;
  };
  let known = null, begun = null, sent = 0;
  for (let from = 0; ;) {
    const to = all <= WHOLE || all - from <= PIECE + SHARED ? all : from + PIECE;
    const {wave, ending} = griffinLim(magnitudes(from, to), to - from, known, begun,
      (share) => tell((from + share * (to - from)) / all));
    // The end of a piece is made anew by the next, which knows what comes then.
    const end = to === all ? total : (to - SHARED + KEPT) * HOP - cut;
    const at = (sample) => HALF + cut + sample - from * HOP;  // sample of the sound → its place in this piece
    send(Float32Array.from(wave.subarray(at(sent), at(end))), sent, total);
    sent = end;
    if (to === all) return;
    known = wave.slice((to - SHARED - from) * HOP, at(sent));
    begun = ending;
    from = to - SHARED;
  }
}

self.onmessage = async ({data}) => {
  try {
    if (data.file) {
      const read = await readPicture(data.file);
      self.postMessage({read}, [read.message.buffer]);
    } else {
      speak(data.message, data.columns, data.speed,
        (samples, start, total) => self.postMessage({samples, start, total}, [samples.buffer]),
        (share) => self.postMessage({share}));
    }
  } catch (error) {
    self.postMessage({error: error instanceof Unplayable ? error.message : `it cannot be played (${error.message})`});
  }
};
