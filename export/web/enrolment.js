// The file of enrolled speakers: JSON, bound to its network. ../ENROLMENT.md has the layout;
// enrolment_file.py and Enrolment.kt read and write the same.

import { InputError } from "./about.js";
import { parseObject } from "./strict_json.js";

const FORMAT = "tfq-sv enrolment";
const VERSION = 1;
const LENGTH_TOLERANCE = 1e-3;

/**
 * The file's text.
 *
 * @param {Map<string, {seconds: number, embedding: Float32Array}[]>} speakers embeddings of length 1
 * @param {string} network `inflated_sha256` of the network that made them
 * @param {number} size of an embedding
 * @returns {string}
 */
export function writeEnrolment(speakers, network, size) {
  const entries = [...speakers].map(([name, references]) => ({
    name,
    references: references.map(({ seconds, embedding }) => ({
      seconds: Math.round(1000 * seconds) / 1000,
      embedding: Array.from(embedding, shortest),
    })),
  }));
  const head = { format: FORMAT, version: VERSION, network, embed_dim: size };
  return `${JSON.stringify({ ...head, speakers: entries })}\n`;
}

/** The shortest decimal that is this float32. */
function shortest(value) {
  for (let digits = 1; digits < 9; digits++) {
    const found = Number(value.toPrecision(digits));
    if (Math.fround(found) === value) return found;
  }
  return Number(value.toPrecision(9)); // always exact
}

/**
 * Reads a file's text; see writeEnrolment.
 *
 * @param {string} text
 * @param {string} network
 * @param {number} size of an embedding
 * @param {string} name of the file, for error messages
 * @returns {Map<string, {seconds: number, embedding: Float32Array}[]>}
 * @throws {InputError} no such file, newer, of another network, or a value that is not allowed
 */
export function readEnrolment(text, network, size, name) {
  const content = parseObject(text);
  if (content?.format !== FORMAT) {
    throw new InputError(`${name} is not a file of enrolled speakers; enroll again`);
  }
  const { version } = content;
  if (Number.isInteger(version) && version > VERSION) {
    throw new InputError(
      `${name} has version ${version}, and this page reads up to ${VERSION}; upgrade tfq-sv`,
    );
  }
  const wrong = (field, value) => {
    const shown = String(JSON.stringify(value ?? null)).slice(0, 60);
    return new InputError(`${name} is damaged: ${field} is ${shown}; enroll again`);
  };
  if (!Number.isInteger(version) || version < 1) throw wrong("version", version);
  if (typeof content.network !== "string") throw wrong("network", content.network);
  if (content.network !== network) {
    throw new InputError(
      `${name} was enrolled with another network, whose embeddings do not compare; enroll again`,
    );
  }
  if (content.embed_dim !== size) throw wrong("embed_dim", content.embed_dim);
  if (!Array.isArray(content.speakers)) throw wrong("speakers", content.speakers);
  const found = new Map();
  for (const entry of content.speakers) {
    if (!isName(entry?.name) || found.has(entry.name)) throw wrong("name", entry?.name);
    const { references } = entry;
    if (!Array.isArray(references) || !references.length) throw wrong("references", references);
    found.set(entry.name, references.map((one) => reference(one, size, wrong)));
  }
  return found;
}

/** Whether a speaker may be called so: text that UTF-8 can hold. */
export function isName(value) {
  return typeof value === "string" && value.length > 0 && value.isWellFormed();
}

function reference(entry, size, wrong) {
  const [seconds, values] = [entry?.seconds, entry?.embedding];
  if (!Number.isFinite(seconds) || seconds < 0) throw wrong("seconds", seconds);
  const fine = Array.isArray(values) && values.length === size && values.every(Number.isFinite);
  if (!fine || Math.abs(Math.hypot(...values) - 1) > LENGTH_TOLERANCE) {
    throw wrong("embedding", values);
  }
  return { seconds, embedding: Float32Array.from(values) };
}
