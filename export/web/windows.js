// Long speech is embedded in windows, whose mean stands for all of it; ../FORMAT.md has the rule.

const WHOLE_SECONDS = 60;
const WINDOW_SECONDS = 40;
const CONSTANT = 2 ** -15;

/**
 * Where the windows are: while more than 60 s are left, the first 40 s of these; then what is left.
 *
 * @param {number} length samples
 * @param {number} rate samples a second
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
 * @param {number} rate samples a second
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

/** Whether a window holds nothing but digital silence, or a constant. */
function isConstant(window) {
  let [low, high] = [window[0], window[0]];
  for (const value of window) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return high - low <= CONSTANT;
}
