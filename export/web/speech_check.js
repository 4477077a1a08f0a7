// What is surely no speech: clicks, tones, hum and noise. Python's tfq_sv.data.speech_check explains
// the rules; tests/data/speech_check.json has cases for both and for Kotlin's SpeechCheck.

export const RATE = 16000;
export const FRAME = 512;
export const STEP = 256;
const EDGES = [2, 5, 8, 11, 14, 18, 23, 29, 36, 45, 56, 70, 87, 108, 134, 167, 208];
const FIRST = 2; // bin of the power spectra
const ACTIVE_DB = 30;
const LEAST_SAMPLES = RATE / 2;
const CLICK_SECONDS = 0.04;
const TONE = 0.99;
const CLICKS = 0.8;
const STEADY_SECONDS = 1;
const STEADY_DB = 2;
const GROUP = 4;
const FLOOR_DB = -50;
// 120 dB below the peak, what float32 and a slow curve leave of a frame that is a line.
const ROUNDING = FRAME * 2 ** -40;
const PULSES = "clicks: short pulses and nothing else";
const MOST_FRAMES = (60 * RATE) / STEP; // a minute is enough to judge by
const HANN = Float64Array.from(
  { length: FRAME },
  (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / (FRAME - 1)),
);

const time = (n) => n - (FRAME - 1) / 2;
const SQUARES = (FRAME * (FRAME ** 2 - 1)) / 12; // of these times

/**
 * Why samples are no speech, in words; empty where nothing says so.
 *
 * @param {Float32Array} samples 16 kHz, of any level
 * @returns {string}
 */
export function noSpeech(samples) {
  if (samples.length < LEAST_SAMPLES) return "";
  const frames = middle(samples);
  const power = frames.map((frame) => sum(frame.map((value) => value * value)));
  const loudest = Math.max(...power);
  const low = samples.reduce((least, value) => Math.min(least, value));
  const high = samples.reduce((most, value) => Math.max(most, value));
  const rounding = ROUNDING * Math.max(-low, high) ** 2;
  if (!Number.isFinite(loudest) || loudest <= rounding || high - low <= 2 ** -15) return "a constant";
  const chosen = power.map((value) => value > loudest * 10 ** (-ACTIVE_DB / 10));
  const active = frames.filter((_, i) => chosen[i]);
  const seconds = (active.length * STEP) / RATE;
  if (seconds <= CLICK_SECONDS) return `a click: all sound lies in ${(1000 * seconds).toFixed(0)} ms`;
  if ((longestRun(chosen) * STEP) / RATE <= CLICK_SECONDS) return PULSES;
  const spectra = active.map(powerSpectrum).filter((spectrum) => sum(spectrum) > 0);
  if (!spectra.length) return "a constant";
  const share = median(spectra.map(strongest));
  if (share > TONE) {
    return `a tone or hum: ${(100 * share).toFixed(0)} % of the power lies at one frequency`;
  }
  if (median(spectra.map(flatness)) > CLICKS) return PULSES;
  const change = spectralChange(spectra);
  if (seconds >= STEADY_SECONDS && change < STEADY_DB) {
    const what = `the spectrum changes by ${change.toFixed(1)} dB`;
    return `steady noise or hum: ${what}; speech has ${STEADY_DB.toFixed(1)} or more`;
  }
  return "";
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** How many frames in a row are chosen, at most. */
function longestRun(chosen) {
  let run = 0;
  return chosen.reduce((most, one) => Math.max(most, (run = one ? run + 1 : 0)), 0);
}

/** Frames of the middle minute, each less the line that fits it best. */
function middle(samples) {
  const all = Math.floor((samples.length - FRAME) / STEP) + 1;
  const start = Math.max(0, Math.floor((all - MOST_FRAMES) / 2)) * STEP;
  return Array.from({ length: Math.min(all, MOST_FRAMES) }, (_, i) => {
    const frame = Float64Array.from(samples.subarray(start + i * STEP, start + i * STEP + FRAME));
    const mean = sum(frame) / FRAME;
    const slope = sum(frame.map((value, n) => (value - mean) * time(n))) / SQUARES;
    return frame.map((value, n) => value - mean - slope * time(n));
  });
}

/** Bins 2 to 256 of a frame under a Hann window. */
function powerSpectrum(frame) {
  const real = frame.map((value, n) => value * HANN[n]);
  const imaginary = new Float64Array(FRAME);
  fft(real, imaginary);
  return real.slice(0, FRAME / 2 + 1).map((value, k) => value ** 2 + imaginary[k] ** 2).slice(FIRST);
}

/** In place; the length is a power of two. */
function fft(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j |= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2;
    for (let k = 0; k < half; k++) {
      const c = Math.cos((2 * Math.PI * k) / size);
      const s = -Math.sin((2 * Math.PI * k) / size);
      for (let a = k; a < n; a += size) {
        const b = a + half;
        const x = real[b] * c - imaginary[b] * s;
        const y = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - x;
        imaginary[b] = imaginary[a] - y;
        real[a] += x;
        imaginary[a] += y;
      }
    }
  }
}

/** The share of power in the strongest bin and two on each side. */
function strongest(spectrum) {
  const best = spectrum.indexOf(Math.max(...spectrum));
  return sum(spectrum.subarray(Math.max(0, best - 2), best + 3)) / sum(spectrum);
}

function flatness(spectrum) {
  const mean = sum(spectrum) / spectrum.length;
  const logs = spectrum.map((value) => Math.log(Math.max(value, 1e-12 * mean)));
  return Math.exp(sum(logs) / spectrum.length) / mean;
}

/** How much power moves between bands over time, dB. */
function spectralChange(spectra) {
  const groups = Math.floor(spectra.length / GROUP);
  if (!groups) return Infinity;
  const ends = [...EDGES.slice(1), FRAME / 2 + 1];
  const shares = [];
  for (let group = 0; group < groups; group++) {
    const some = spectra.slice(group * GROUP, (group + 1) * GROUP);
    const bands = EDGES.map((edge, band) =>
      sum(some.map((spectrum) => sum(spectrum.subarray(edge - FIRST, ends[band] - FIRST)))),
    );
    const whole = sum(bands);
    shares.push(bands.map((x) => Math.max(10 * Math.log10(Math.max(x / whole, 1e-12)), FLOOR_DB)));
  }
  const variances = EDGES.map((_, band) => {
    const mean = sum(shares.map((row) => row[band])) / groups;
    return sum(shares.map((row) => (row[band] - mean) ** 2)) / groups;
  });
  return Math.sqrt(sum(variances) / EDGES.length);
}
