// The rules of deciding: which threshold, what score, whose voice. ../ENROLMENT.md has them;
// decision.py and Decision.kt keep the same ones.

import { InputError } from "./about.js";

/** The threshold that is taken where none is named. */
export const OPERATING_POINT = "eer";
const TYPICAL_COSINE = 0.7; // of two recordings of one speaker

/**
 * A threshold of a file by its name, or the one given.
 *
 * @param {object} about the file's metadata
 * @param {string | number} choice
 * @returns {number}
 * @throws {InputError} the file has no such threshold
 */
export function findThreshold(about, choice) {
  if (Number.isFinite(choice)) return choice;
  const stored = about.thresholds ?? {};
  if (Object.hasOwn(stored, choice) && stored[choice].threshold !== null) {
    return stored[choice].threshold;
  }
  const known = Object.keys(stored).filter((name) => stored[name].threshold !== null);
  throw new InputError(
    known.length
      ? `the file has no threshold '${choice}'; it has ${known.join(", ")}`
      : "the file has no thresholds; measure them: tfq-sv evaluate --store",
  );
}

/** Scales an embedding to length 1. */
export function unit(embedding) {
  const length = Math.sqrt(dot(embedding, embedding));
  if (!Number.isFinite(length) || length === 0) {
    throw new InputError(`an embedding of length ${length} has no direction; record again`);
  }
  return embedding.map((value) => value / length);
}

/** The score of a voice against a speaker's references; all of length 1. */
export function score(references, test) {
  const n = references.length;
  const mean = Array.from(test, (_, d) => references.reduce((sum, one) => sum + one[d], 0) / n);
  const length = Math.sqrt(dot(mean, mean));
  if (length === 0) return 0; // they cancel out
  // The mean of several is nearer to any voice; so that thresholds mean what they do for one:
  const scale = Math.sqrt((1 + (n - 1) * TYPICAL_COSINE) / n);
  return Math.min(1, Math.max(-1, dot(mean, test) / length)) * scale; // rounding leads out
}

/**
 * Whom a voice is most like, and the second best. `speaker` is null if the voice is nobody's that is
 * enrolled.
 *
 * @param {Map<string, Float32Array[]>} speakers references of length 1
 * @param {Float32Array} test of length 1
 * @param {number} threshold
 */
export function best(speakers, test, threshold) {
  const ranked = [...speakers].map(([name, references]) => ({
    name,
    score: score(references, test),
  }));
  ranked.sort((a, b) => b.score - a.score); // stable: of equal ones the first stays first
  if (!ranked.length) throw new InputError("nobody is enrolled; enroll first");
  const [first, second] = ranked;
  const accepted = first.score >= threshold;
  return {
    ...first,
    threshold,
    accepted,
    speaker: accepted ? first.name : null,
    runnerUp: second?.name ?? null,
    margin: second ? first.score - second.score : null,
  };
}

/** Of plain arrays or Float32Arrays. */
export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
