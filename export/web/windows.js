// Long speech is embedded in windows, whose mean stands for all of it; ../FORMAT.md has the rule.

const WHOLE_SECONDS = 60;
const WINDOW_SECONDS = 40;
const CONSTANT = 2 ** -15;
const RINGING = 64; // samples
const RIPPLE = 1e-4;

/**
 * Where the windows are: while more than 60 s are left, the first 40 s of these; then what is left.
 *
 * @param {number} length samples
 * @param {number} rate samples per second
 * @returns {[number, number][]} first sample and the one after the last
 */
export function borders(length, rate) {
  const found = [];
  let start = 0;
  while (length - start > WHOLE_SECONDS * rate) {
    found.push([start, start + WINDOW_SECONDS * rate]);
    start += WINDOW_SECONDS * rate;
  }
  return [...found, [start, length]];
}

/**
 * Embeds speech of any length.
 *
 * @param {(window: Float32Array) => Promise<Float32Array>} network embeds one window
 * @param {Float32Array} speech
 * @param {number} rate samples per second
 * @returns {Promise<Float32Array>}
 */
export async function embedInWindows(network, speech, rate) {
  const windows = borders(speech.length, rate).map(([first, last]) => speech.subarray(first, last));
  if (windows.length === 1) return network(speech);
  const sounding = windows.filter((window) => !isConstant(window));
  const used = sounding.length > 0 ? sounding : windows.slice(0, 1);
  let sums = null;
  for (const window of used) {
    const embedding = await network(window);
    sums ??= new Float64Array(embedding.length);
    embedding.forEach((value, i) => (sums[i] += value));
  }
  return Float32Array.from(sums, (sum) => sum / used.length);
}

/**
 * Why speech is silent, by Python's rule and in its words; empty where it is not.
 *
 * @param {Float32Array} samples
 * @returns {string}
 */
export function silence(samples) {
  const [low, high] = range(samples);
  if (low === 0 && high === 0) return "every sample is zero";
  const refused = (value) => `a constant of ${value.toFixed(4)}, from a muted input perhaps`;
  if (high - low <= CONSTANT) return refused(high);
  // A constant that the browser has resampled rings at both ends, and hums a little between.
  const [least, most] = range(samples.subarray(RINGING, -RINGING));
  const level = Math.abs(most);
  const rings = high - low > 0.05 * level && level > CONSTANT;
  return rings && most - least <= CONSTANT + RIPPLE * level ? refused(most) : "";
}

/** Whether a window holds nothing but digital silence, or a constant. */
function isConstant(window) {
  const [low, high] = range(window);
  return high - low <= CONSTANT;
}

function range(samples) {
  let [low, high] = [samples[0], samples[0]];
  for (const value of samples) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
