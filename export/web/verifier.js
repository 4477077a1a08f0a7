// SpeakerVerifier: knows enrolled speakers again. ../ENROLMENT.md has the rules, which Python's and
// Kotlin's SpeakerVerifier keep as well.

import { InputError } from "./about.js";
import { leastScore, problem as disagreement } from "./agreement.js";
import { llr } from "./calibration.js";
import { best, findThreshold, OPERATING_POINT, score, unit } from "./decision.js";
import { isName, readEnrolment, writeEnrolment } from "./enrolment.js";
import { measure, problem } from "./quality.js";
import { noSpeech } from "./speech_check.js";

/** Puts what an error is of before it. */
const naming = (what) => (error) => {
  if (error instanceof InputError) throw new InputError(`${what}: ${error.message}`);
  throw error;
};

/** Enrolled speakers, and whether a voice is theirs. Waveforms are 16 kHz, in [-1, 1]. */
export class SpeakerVerifier {
  #encoder;
  #speakers = new Map();

  /** @param {SpeakerEncoder} encoder */
  constructor(encoder) {
    this.#encoder = encoder;
  }

  /** Who is enrolled, in alphabetical order. */
  get names() {
    return [...this.#speakers.keys()].sort();
  }

  /**
   * Enrolls a speaker by some recordings; replaces one of that name. Three or more, of some seconds
   * each, are best: only then one that is another person's can be told.
   *
   * @param {string} name
   * @param {Float32Array[]} recordings
   * @param {{check?: boolean}} options check: refuse recordings with little speech, too quiet or
   *   clipped ones, and one that does not fit the others
   * @throws {InputError} which recording and why; then nothing has changed
   */
  async enroll(name, recordings, { check = true } = {}) {
    if (!isName(name)) throw new InputError("a speaker's name is text of one character or more");
    if (!recordings.length) {
      throw new InputError(`${name}: no recording to enroll; give one or more, best three`);
    }
    recordings.forEach((waveform, i) => {
      const reason = check ? problem(waveform) : "";
      if (reason) throw new InputError(`recording ${i + 1}: ${reason}; record again`);
    });
    const references = [];
    for (const [i, waveform] of recordings.entries()) {
      const embedding = unit(await this.#encoder.embed(waveform).catch(naming(`recording ${i + 1}`)));
      references.push({ seconds: measure(waveform).seconds, embedding });
    }
    const embeddings = references.map((reference) => reference.embedding);
    const least = leastScore(this.#encoder.threshold);
    const reason = check ? disagreement(embeddings, least) : "";
    if (reason) throw new InputError(`${name}: ${reason}`);
    this.#speakers.set(name, references);
  }

  /** Forgets a speaker; false if there was none of that name. */
  remove(name) {
    return this.#speakers.delete(name);
  }

  /**
   * Compares a voice with one enrolled speaker.
   *
   * @param {string} name
   * @param {Float32Array} recording
   * @param {string | number} threshold "eer", "far_1e-2", "far_1e-3", or a score
   * @returns {Promise<{name, score, threshold, accepted, doubt, llr}>} doubt: why it is perhaps no
   *   speech; llr: natural logarithm of how much likelier the score is from the enrolled speaker
   *   than from another, null where the file holds no calibration
   * @throws {InputError} nobody of that name, no such threshold, or too little speech
   */
  async verify(name, recording, threshold = OPERATING_POINT) {
    const least = findThreshold(this.#encoder.about, threshold);
    if (!this.#speakers.has(name)) {
      const who = this.names.length ? `there are ${this.names.join(", ")}` : "nobody is: enroll first";
      throw new InputError(`${name} is not enrolled; ${who}`);
    }
    const references = this.#embeddings().get(name); // before others have their turn
    const test = unit(await this.#encoder.embed(recording));
    const found = score(references, test);
    const accepted = found >= least;
    const seconds = measure(recording).seconds;
    const ratio = llr(this.#encoder.about, found, seconds, references.length);
    const doubt = noSpeech(recording);
    return { name, score: found, threshold: least, accepted, doubt, llr: ratio };
  }

  /**
   * Finds the enrolled speaker that a voice is most like; it may be a stranger's. Of many speakers
   * one is easily like a stranger: the more are enrolled, the stricter the threshold should be.
   *
   * @param {Float32Array} recording
   * @param {string | number} threshold as for verify
   * @returns {Promise<{speaker, name, score, threshold, accepted, runnerUp, margin, doubt}>}
   */
  async identify(recording, threshold = OPERATING_POINT) {
    const least = findThreshold(this.#encoder.about, threshold);
    const enrolled = this.#embeddings();
    const test = unit(await this.#encoder.embed(recording));
    return { ...best(enrolled, test, least), doubt: noSpeech(recording) };
  }

  /** The file of enrolled speakers, which Python and Android read too. It is biometric data. */
  save() {
    const { inflated_sha256: network, embed_dim: size } = this.#encoder.about;
    return writeEnrolment(this.#speakers, network, size);
  }

  /**
   * Reads what save gave, here or elsewhere, in place of whoever is enrolled.
   *
   * @param {string} text
   * @param {string} name of the file, for error messages
   * @throws {InputError} damaged, newer, or of another network
   */
  load(text, name = "the file") {
    const { inflated_sha256: network, embed_dim: size } = this.#encoder.about;
    this.#speakers = readEnrolment(text, network, size, name);
  }

  #embeddings() {
    const entries = [...this.#speakers];
    return new Map(entries.map(([name, references]) => [name, references.map((x) => x.embedding)]));
  }
}
