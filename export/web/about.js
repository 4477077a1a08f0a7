// What a file says of itself, checked once, before anything works by it. ../FORMAT.md has the rules;
// about.py and About.kt keep the same ones.

import { isObject, parseObject } from "./strict_json.js";

const INT32 = 2 ** 31 - 1;
const MOST_COSINE = 1.01; // with a little for rounding; beyond, all voices would be one, or none
const SHA256 = /^[0-9a-f]{64}$/;

/** What a user can set right; the message says how. */
export class InputError extends Error {}

/**
 * Reads the JSON that a file's `about` signature gave.
 *
 * @param {string | Uint8Array} text
 * @param {string} name of the file, for error messages
 * @returns {object}
 * @throws {InputError} wrong, or of a file that takes features instead of a waveform
 */
export function parseAbout(text, name) {
  const about = parseObject(text);
  if (!about) {
    throw new InputError(`${name} has wrong metadata: no JSON object; export it again`);
  }
  if (about.input === "features") {
    throw new InputError(`${name} takes features; export it again with --input=waveform`);
  }
  const right = {
    input: about.input === "waveform",
    compute: about.compute === "int8" || about.compute === "float32",
    feat_dim: isCount(about.feat_dim),
    embed_dim: isCount(about.embed_dim),
    sample_rate: isCount(about.sample_rate),
    min_samples: isCount(about.min_samples),
    frontend: isUnknown(about.frontend) || isObject(about.frontend),
    score: about.score === undefined || about.score === "cosine",
    thresholds: isUnknown(about.thresholds) || areThresholds(about.thresholds),
    inflated_sha256: typeof about.inflated_sha256 === "string" && SHA256.test(about.inflated_sha256),
  };
  for (const [field, fine] of Object.entries(right)) {
    if (fine) continue;
    const value = String(JSON.stringify(about[field])).slice(0, 60);
    throw new InputError(`${name} has wrong metadata: ${field} is ${value}; export it again`);
  }
  return about;
}

/** The cosine above which two embeddings are of one voice, at the EER; null if not known. */
export function threshold(about) {
  return about.thresholds?.eer?.threshold ?? null;
}

const isUnknown = (value) => value === undefined || value === null;
const isCount = (value) => Number.isInteger(value) && value > 0 && value <= INT32;

/** Name -> {"threshold": a cosine (with a little for rounding) or null, and whatever else}. */
function areThresholds(value) {
  const isEntry = (entry) =>
    isObject(entry) && (entry.threshold === null ||
      (Number.isFinite(entry.threshold) && Math.abs(entry.threshold) <= MOST_COSINE));
  return isObject(value) && Object.values(value).every(isEntry);
}
