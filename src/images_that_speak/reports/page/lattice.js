// Find the cells of a print by their lattice, as audio/lattice.py does, step by step and with its numbers: one cell of n
// carries the voice, which makes two sharp lines in the spectrum; their frequencies give the size and the turn of the
// cells, their phases give their place, and the blackest cells between the dots tell how blurred the picture is.
const MOST_DOTS = 8, SIDE = 1024, PROMINENT = 12, SMALLEST = 0.25, LARGEST = 1.35, FINEST = 1.2, TURN = 0.03, STRETCH = 0.008;
const SAMPLES = 4, TILE = 8, DARKEST = 0.02, BLACK = 0.01, SHARP = 0.03, LIGHT = 0.31, BLURRED = 0.1, CLEAR = 0.01, MOSTLY = 0.8;
const MOST_SEARCHED = 24e6;  // pixels; of more no lattice is looked for, to bound the memory

const length = ([a, b]) => Math.hypot(a, b);
const modulo = (value, n) => ((value % n) + n) % n;

function latticeStep(every) {
  const nearest = (step) => {
    let least = Infinity;
    for (let i = 0; i < every; i++) {
      for (let j = -every; j <= every; j++) {
        if ((i || j) && modulo(step * i + j, every) === 0) least = Math.min(least, i * i + j * j);
      }
    }
    return least;
  };
  let best = 1;
  for (let step = 2; step < every; step++) if (nearest(step) > nearest(best)) best = step;
  return best;
}

/** The two shortest frequencies of the lattice: [along rows, along columns] in cycles a cell. */
function latticeLines(every) {
  const step = latticeStep(every), found = [];
  for (let k = 1; k < every; k++) {
    const down = k * step / every % 1, right = k / every;
    for (const a of down ? [down, down - 1] : [0, -1]) found.push([a, right]);
  }
  const size = (line) => Math.round(1e6 * length(line));
  found.sort((a, b) => size(a) - size(b) || a[0] - b[0] || a[1] - b[1]);
  const [first] = found;
  return [first, found.find((line) => Math.abs(first[0] * line[1] - first[1] * line[0]) > 1e-6)];
}

/** The discrete Fourier transform of a power of two of samples, in place. */
function fourier(size) {
  const cosine = new Float64Array(size / 2), sine = new Float64Array(size / 2), mirrored = new Uint16Array(size);
  for (let index = 0; index < size / 2; index++) {
    cosine[index] = Math.cos(2 * Math.PI * index / size);
    sine[index] = Math.sin(2 * Math.PI * index / size);
  }
  for (let index = 0; index < size; index++) mirrored[index] = (mirrored[index >> 1] >> 1) | (index & 1 ? size / 2 : 0);
  return (real, imaginary) => {
    for (let index = 0; index < size; index++) {
      const other = mirrored[index];
      if (other > index) {
        const re = real[index], im = imaginary[index];
        real[index] = real[other];
        imaginary[index] = imaginary[other];
        real[other] = re;
        imaginary[other] = im;
      }
    }
    for (let half = 1, step = size / 2; half < size; half *= 2, step /= 2) {
      for (let start = 0; start < size; start += 2 * half) {
        for (let index = start, turn = 0; index < start + half; index++, turn += step) {
          const c = cosine[turn], s = sine[turn], re = real[index + half], im = imaginary[index + half];
          const a = re * c + im * s, b = im * c - re * s;
          real[index + half] = real[index] - a;
          imaginary[index + half] = imaginary[index] - b;
          real[index] += a;
          imaginary[index] += b;
        }
      }
    }
  };
}

/** gray (Uint8Array, height × width) → {every, matrix, middle, rows, columns}, or null where there is no lattice. */
function findGrid(gray, width, height) {
  const edges = findEdges(gray, width, height, Math.max(1, rounded(height / (2 * BANDS))));
  const spectrum = middleSpectrum(edges, width, height), found = new Map();
  for (let every = 2; every <= MOST_DOTS; every++) found.set(every, findPeaks(spectrum, height / BANDS, latticeLines(every)));
  const highest = Math.max(...[...found.values()].map(({prominence}) => prominence));
  if (highest < PROMINENT) return null;
  const [every, {peaks}] = [...found].find(([, {prominence}]) => prominence > 0.7 * highest);
  const lines = latticeLines(every), size = (length(lines[0]) / length(peaks[0]) + length(lines[1]) / length(peaks[1])) / 2;
  for (const times of [3, 2, 1]) {
    for (let dots = MOST_DOTS; dots >= every; dots--) {
      const both = latticeLines(dots).map((line) => findPeak(spectrum, line[0] / (times * size), line[1] / (times * size)));
      if (Math.min(both[0].prominence, both[1].prominence) > Math.max(PROMINENT, 0.3 * highest)) {
        return fitGrid(edges, width, height, dots, both.map(({at}) => at));
      }
    }
  }
  return fitGrid(edges, width, height, every, peaks);
}

function findEdges(gray, width, height, lag) {
  const edges = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const here = y * width, above = Math.max(0, y - lag) * width, below = Math.min(height - 1, y + lag) * width;
    for (let x = 0; x < width; x++) {
      edges[here + x] = (4 * gray[here + x] - gray[above + x] - gray[below + x]
        - gray[here + Math.max(0, x - lag)] - gray[here + Math.min(width - 1, x + lag)]) / 255;
    }
  }
  return edges;
}

/** Magnitudes of the middle of the picture: SIDE rows of SIDE / 2 + 1. */
function middleSpectrum(edges, width, height) {
  const top = Math.max(0, (height - SIDE) >> 1), left = Math.max(0, (width - SIDE) >> 1), half = SIDE / 2 + 1;
  const high = Math.min(SIDE, height), wide = Math.min(SIDE, width), transform = fourier(SIDE);
  const window = (at, count) => count > 1 ? 0.5 - 0.5 * Math.cos(2 * Math.PI * at / (count - 1)) : 1;
  const across = Float64Array.from({length: wide}, (_, x) => window(x, wide));
  const re = new Float64Array(SIDE), im = new Float64Array(SIDE);
  const real = new Float32Array(SIDE * half), imaginary = new Float32Array(SIDE * half);
  for (let y = 0; y < high; y++) {
    const from = (top + y) * width + left, share = window(y, high);
    re.fill(0);
    im.fill(0);
    for (let x = 0; x < wide; x++) re[x] = edges[from + x] * across[x] * share;
    transform(re, im);
    real.set(re.subarray(0, half), y * half);
    imaginary.set(im.subarray(0, half), y * half);
  }
  for (let k = 0; k < half; k++) {
    for (let y = 0; y < SIDE; y++) {
      re[y] = real[y * half + k];
      im[y] = imaginary[y * half + k];
    }
    transform(re, im);
    for (let y = 0; y < SIDE; y++) real[y * half + k] = Math.hypot(re[y], im[y]);
  }
  return real;
}

function findPeaks(spectrum, cell, lines) {
  let best = {prominence: 0, peaks: lines};
  for (let step = 0; ; step++) {
    const log = Math.log(SMALLEST) + step * STRETCH, size = cell * Math.exp(log);
    if (log >= Math.log(LARGEST)) return best;
    if (size <= FINEST || lines.some((line) => line.some((each) => Math.abs(each) / size >= 0.49))) continue;
    const both = lines.map((line) => findPeak(spectrum, line[0] / size, line[1] / size));
    const prominence = Math.min(both[0].prominence, both[1].prominence);
    if (prominence > best.prominence) best = {prominence, peaks: both.map(({at}) => at)};
  }
}

const around = new Float32Array(41 * 41);

function findPeak(spectrum, down, right) {
  const half = SIDE / 2 + 1, level = (y, x) => spectrum[modulo(y, SIDE) * half + x];
  const reach = (a, b) => Math.floor(SIDE * (TURN * Math.abs(a) + STRETCH * Math.abs(b))) + 2;
  const row = rounded(down * SIDE), column = rounded(right * SIDE), high = reach(right, down), wide = reach(down, right);
  let most = -1, at = [row, column];
  for (let y = row - high; y <= row + high; y++) {
    for (let x = Math.max(0, column - wide); x <= Math.min(SIDE / 2, column + wide); x++) {
      if (level(y, x) > most) {
        most = level(y, x);
        at = [y, x];
      }
    }
  }
  let count = 0;
  for (let y = at[0] - 20; y <= at[0] + 20; y++) {
    for (let x = Math.max(0, at[1] - 20); x <= Math.min(SIDE / 2, at[1] + 20); x++) around[count++] = level(y, x);
  }
  return {prominence: most / Math.max(quantile(around.slice(0, count), 0.5), 1e-12), at: [at[0] / SIDE, at[1] / SIDE]};
}

/** As numpy's, by linear interpolation. The values are sorted in place. */
function quantile(values, share) {
  values.sort();
  const place = share * (values.length - 1), below = Math.floor(place);
  return values[below] + (place - below) * (values[Math.min(values.length - 1, below + 1)] - values[below]);
}

/** [[a, b], [c, d]] · x = y, solved for x. */
function solve([[a, b], [c, d]], [y, z]) {
  const determinant = a * d - b * c;
  return [(d * y - b * z) / determinant, (a * z - c * y) / determinant];
}

function fitGrid(edges, width, height, every, peaks) {
  const lines = latticeLines(every), side = Math.max(8, rounded(TILE / length(peaks[0]) * length(lines[0])));
  const fitted = peaks.map((peak) => fitLine(edges, width, height, peak, side));
  const frequencies = fitted.map(({frequency}) => frequency);
  const first = solve(frequencies, [lines[0][0], lines[1][0]]), second = solve(frequencies, [lines[0][1], lines[1][1]]);
  const matrix = [[first[0], second[0]], [first[1], second[1]]];
  const rows = Math.max(1, rounded(height / length(first))), columns = Math.max(1, rounded(width / length(second)));
  const away = lines.map((line, index) => {
    const turns = line[0] * (rows - 1) / 2 + line[1] * (columns - 1) / 2 - fitted[index].phase;
    return turns - Math.round(turns);
  });
  const moved = solve(lines, away);
  return {every, matrix, middle: [rows / 2 - moved[0], columns / 2 - moved[1]], rows, columns};
}

/** A line's frequency, and its phase in turns at the middle of the picture, fitted to that of tiles. */
function fitLine(edges, width, height, frequency, side) {
  const down = Math.floor(height / side), across = Math.floor(width / side), tiles = [];
  const turns = (count, along, size) => Array.from({length: count}, (_, at) => {
    const angle = -2 * Math.PI * along * (at + 0.5 - size / 2);
    return [Math.cos(angle), Math.sin(angle)];
  });
  const rowTurns = turns(down * side, frequency[0], height), columnTurns = turns(across * side, frequency[1], width);
  for (let i = 0; i < down; i++) {
    for (let j = 0; j < across; j++) {
      let re = 0, im = 0;
      for (let y = i * side; y < (i + 1) * side; y++) {
        let a = 0, b = 0;
        for (let x = j * side; x < (j + 1) * side; x++) {
          a += edges[y * width + x] * columnTurns[x][0];
          b += edges[y * width + x] * columnTurns[x][1];
        }
        const [c, s] = rowTurns[y];
        re += a * c - b * s;
        im += a * s + b * c;
      }
      tiles.push({re, im, y: (i + 0.5) * side - height / 2, x: (j + 0.5) * side - width / 2});
    }
  }
  const offset = [0, 0];
  const turned = ({re, im, y, x}) => {
    const angle = -2 * Math.PI * (offset[0] * y + offset[1] * x), c = Math.cos(angle), s = Math.sin(angle);
    return [re * c - im * s, re * s + im * c];
  };
  const phaseOf = (chosen) => {
    let re = 0, im = 0;
    for (const tile of chosen) {
      const [a, b] = turned(tile);
      re += a;
      im += b;
    }
    return Math.atan2(im, re);
  };
  for (let step = 0; step < 10; step++) {
    const reach = SIDE / 4 * 2 ** step, near = tiles.filter(({y, x}) => Math.abs(y) <= reach && Math.abs(x) <= reach);
    const phase = phaseOf(near), sums = Array.from({length: 3}, () => [0, 0, 0, 0]);
    for (const tile of near) {
      const [a, b] = turned(tile), rest = Math.atan2(b * Math.cos(phase) - a * Math.sin(phase),
        a * Math.cos(phase) + b * Math.sin(phase)) / (2 * Math.PI);
      if (Math.abs(rest) >= 0.25) continue;
      const weight = tile.re ** 2 + tile.im ** 2, values = [1, tile.y, tile.x, rest];
      for (let i = 0; i < 3; i++) for (let j = 0; j < 4; j++) sums[i][j] += weight * values[i] * values[j];
    }
    const found = leastSquares(sums);
    offset[0] += found[1];
    offset[1] += found[2];
  }
  return {frequency: [frequency[0] + offset[0], frequency[1] + offset[1]], phase: phaseOf(tiles) / (2 * Math.PI)};
}

/** Three normal equations, [[…, right side], …] → their solution; 0 for what nothing tells. */
function leastSquares(rows) {
  for (let i = 0; i < 3; i++) {
    for (let k = 0; k < 3; k++) {
      if (k === i || Math.abs(rows[i][i]) < 1e-12) continue;
      const share = rows[k][i] / rows[i][i];
      for (let j = 0; j < 4; j++) rows[k][j] -= share * rows[i][j];
    }
  }
  return rows.map((row, i) => Math.abs(row[i]) < 1e-12 ? 0 : row[3] / row[i]);
}

/** Whether these are the cells that any picture of this size has, to a tenth of a cell. */
function isPlain({matrix, middle, rows, columns}, width, height) {
  const corner = solve(matrix, [height / 2, width / 2]);
  return rows === BANDS && columns === rounded(width * BANDS / height) && [0, 1].every((axis) => Math.abs(corner[axis] - middle[axis]) < 0.1
    && Math.abs([rows, columns][axis] - 2 * middle[axis]) < 0.1);
}

/** Means over the cells of a grid; beyond its edges the picture goes on. */
function readCells(gray, width, height, {matrix, middle, rows, columns}) {
  const cells = new Float32Array(rows * columns);
  const within = (at, count) => Math.min(count - 1, Math.max(0, at));
  const level = (y, x) => gray[within(y, height) * width + within(x, width)];
  for (let i = 0; i < rows * SAMPLES; i++) {
    const down = (i + 0.5) / SAMPLES - middle[0], start = Math.floor(i / SAMPLES) * columns;
    for (let j = 0; j < columns * SAMPLES; j++) {
      const right = (j + 0.5) / SAMPLES - middle[1];
      const y = matrix[0][0] * down + matrix[0][1] * right + height / 2 - 0.5;
      const x = matrix[1][0] * down + matrix[1][1] * right + width / 2 - 0.5;
      const top = Math.floor(y), left = Math.floor(x), low = y - top, far = x - left;
      const mean = (1 - low) * ((1 - far) * level(top, left) + far * level(top, left + 1))
        + low * ((1 - far) * level(top + 1, left) + far * level(top + 1, left + 1));
      cells[start + Math.floor(j / SAMPLES)] += mean / (255 * SAMPLES * SAMPLES);
    }
  }
  return cells;
}

/** The mean around each cell, in which a check does not show. */
function meansAround(cells, rows, columns) {
  const along = (values, next, count, at) => Float32Array.from(values, (value, index) => {
    const place = at(index), before = place ? index - next : index + next;
    return (values[before] + 2 * value + values[place < count - 1 ? index + next : index - next]) / 4;
  });
  const down = rows > 1 ? along(cells, columns, rows, (index) => Math.floor(index / columns)) : cells;
  return columns > 1 ? along(down, 1, columns, (index) => index % columns) : down;
}

/** Cells of a check with the contrast that blur took from them; sharp ones as they are. */
function sharpen(cells, rows, columns, isDot) {
  const means = meansAround(cells, rows, columns), between = [];
  for (let index = 0; index < cells.length; index++) {
    if (!isDot(Math.floor(index / columns), index % columns) && means[index] > BLACK) between.push(index);
  }
  const dark = between.length ? quantile(Float32Array.from(between, (index) => cells[index]), DARKEST) : 0;
  if (dark <= SHARP || dark >= LIGHT) return cells;
  let least = BLURRED, most = 1;
  for (let step = 0; step < 12; step++) {
    const share = (least + most) / 2;
    const darkest = quantile(Float32Array.from(between, (at) => means[at] + (cells[at] - means[at]) / share), DARKEST);
    if (darkest > BLACK) most = share;
    else least = share;
  }
  return cells.map((value, index) => Math.min(1, Math.max(0, means[index] + (value - means[index]) / most)));
}

/**
 * Cells → {message, columns} of 256 rows: a border is taken off, a check is sharpened, rows that were cut off are black.
 * Null where too few dots are brighter than what is around them: that is some other regular pattern.
 */
function wholePrint(cells, {every, rows, columns}) {
  const means = meansAround(cells, rows, columns), step = latticeStep(every);
  const isDot = (i, j) => (step * i + j) % every === 0;
  const difference = cells.map((value, index) => value - means[index]);
  let [top, first, last] = [0, 0, columns - 1];
  if (rows > BANDS) {
    const strength = difference.map((value, index) => value * (isDot(Math.floor(index / columns), index % columns) ? every - 1 : -1));
    [top, first, last] = findInside(strength, rows, columns);
  }
  const high = Math.min(BANDS, rows), kept = last - first + 1;
  let inside = new Float32Array(high * kept), brighter = 0, clear = 0;
  for (let i = 0; i < high; i++) {
    const from = (top + i) * columns + first;
    inside.set(cells.subarray(from, from + kept), i * kept);
    for (let j = 0; j < kept; j++) {
      if (!isDot(top + i, first + j) || Math.abs(difference[from + j]) <= CLEAR) continue;
      clear++;
      if (difference[from + j] > 0) brighter++;
    }
  }
  if (!clear || brighter < MOSTLY * clear) return null;
  if (every === 2) inside = sharpen(inside, high, kept, (i, j) => isDot(top + i, first + j));
  const message = new Float32Array(BANDS * kept);
  message.set(inside, Math.floor((BANDS - high) / 2) * kept);
  return {message, columns: kept};
}

/** [top, first, last]: the 256 rows and the columns in which dots are brighter than what is around them. */
function findInside(strength, rows, columns) {
  const sums = [0];
  for (let i = 0; i < rows; i++) {
    sums.push(sums[i] + strength.subarray(i * columns, (i + 1) * columns).reduce((a, b) => a + b, 0) / columns);
  }
  const inside = Array.from({length: rows - BANDS + 1}, (_, at) => sums[at + BANDS] - sums[at]);
  const most = Math.max(...inside), middle = (rows - BANDS) / 2;
  let top = -1;
  inside.forEach((sum, at) => {
    if (sum >= most - 0.001 * Math.abs(most) && (top < 0 || Math.abs(at - middle) < Math.abs(top - middle))) top = at;
  });
  const shown = new Float32Array(columns);
  for (let i = top; i < top + BANDS; i++) for (let j = 0; j < columns; j++) shown[j] += strength[i * columns + j] / BANDS;
  const least = 0.1 * quantile(shown.slice(), 0.5), first = shown.findIndex((each) => each > least);
  return first < 0 ? [top, 0, columns - 1] : [top, first, shown.findLastIndex((each) => each > least)];
}
