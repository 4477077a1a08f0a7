// Whether a recording is good enough to enrol. ../ENROLMENT.md has the rules; quality.py and
// Quality.kt keep the same ones.

import { FRAME, noSpeech, RATE, STEP } from "./speech_check.js";

const LEAST_SECONDS = 1;
const LEAST_LEVEL = -50;
const MOST_CLIPPED = 0.01;
const ACTIVE_DB = 30;
const CLIPPED = 0.99;

/**
 * Measures samples: seconds of net speech (frames within 30 dB of the loudest), the level of those
 * frames in dB below full scale, and the share of samples that reach 99 % of full scale.
 *
 * @param {Float32Array} samples 16 kHz, in [-1, 1]
 * @returns {{seconds: number, level: number, clipped: number}}
 */
export function measure(samples) {
  let [total, loud] = [0, 0];
  for (const value of samples) {
    total += value;
    if (Math.abs(value) >= CLIPPED) loud += 1;
  }
  const clipped = samples.length ? loud / samples.length : 0;
  const mean = total / samples.length;
  const power = [];
  for (let start = 0; start + FRAME <= samples.length; start += STEP) {
    let energy = 0;
    for (let i = start; i < start + FRAME; i++) energy += (samples[i] - mean) ** 2;
    power.push(energy / FRAME);
  }
  const loudest = power.reduce((most, value) => Math.max(most, value), 0);
  if (!(loudest > 0)) return { seconds: 0, level: -Infinity, clipped };
  const active = power.filter((value) => value > loudest * 10 ** (-ACTIVE_DB / 10));
  const level = 10 * Math.log10(active.reduce((sum, value) => sum + value, 0) / active.length);
  return { seconds: (active.length * STEP) / RATE, level, clipped };
}

/**
 * Why samples should not be enrolled; empty where nothing says so.
 *
 * @param {Float32Array} samples 16 kHz, in [-1, 1]
 * @returns {string}
 */
export function problem(samples) {
  const reason = noSpeech(samples);
  if (reason) return `perhaps no speech: ${reason}`;
  const { seconds, level, clipped } = measure(samples);
  if (seconds < LEAST_SECONDS) return `${seconds.toFixed(1)} s of speech; at least 1 s is needed`;
  if (level < LEAST_LEVEL) return `too quiet: ${level.toFixed(0)} dB; at least -50 dB of full scale`;
  if (clipped > MOST_CLIPPED) {
    const share = (100 * clipped).toFixed(1);
    return `clipped: ${share} % of the samples are at full scale; at most 1 %`;
  }
  return "";
}
