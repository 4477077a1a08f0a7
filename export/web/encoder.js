// SpeakerEncoder: speech in, embedding out, on LiteRT's WebAssembly build. ../FORMAT.md specifies
// the file that it runs.

import { getGlobalLiteRtPromise, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { InputError, parseAbout, threshold } from "./about.js";
import { embedInWindows } from "./windows.js";

const WASM = new URL("node_modules/@litertjs/core/wasm/", import.meta.url).href;
const ACCELERATOR = { accelerator: "wasm" };
const MAGIC = Uint8Array.from("\x89tfq-sv-file\r\n\x1a\n", (letter) => letter.charCodeAt(0));
const VERSION = 1;
const DIGEST = { start: 32, stop: 64 }; // of the seal's 64 bytes

export { InputError };

/** Runs a file that `tfq-sv export` wrote. */
export class SpeakerEncoder {
  #model;

  /** Metadata of the file. */
  about;

  constructor(model, about) {
    this.#model = model;
    this.about = about;
  }

  /**
   * Opens a file: checks it, and inflates its weights to int8, as Python's SpeakerEncoder does.
   * What `tfq-sv inflate` wrote runs as it is.
   *
   * @param {Uint8Array} bytes
   * @param {string} name for error messages
   * @returns {Promise<SpeakerEncoder>}
   * @throws {InputError} damaged, not one of ours, or it takes features instead of a waveform
   */
  static async open(bytes, name) {
    await checkSeal(bytes, name);
    await loadRuntime();
    const packed = await loadAndCompile(bytes, ACCELERATOR).catch((error) => {
      if (!/type INT8 /.test(error.message)) throw error;
      throw new InputError(
        `${name} returns int8, which LiteRT.js does not know; export it without --fixed_lengths`,
      );
    });
    try {
      const about = parseAbout(await ask(packed, "about", "json"), name);
      if (about.form) return new SpeakerEncoder(await loadAndCompile(bytes, ACCELERATOR), about);
      const inflated = await ask(packed, "inflate", "tflite");
      if (hex(await sha256(inflated)) !== about.inflated_sha256) {
        throw new InputError(`${name} inflates to other bytes than it says; export it again`);
      }
      return new SpeakerEncoder(await loadAndCompile(inflated, ACCELERATOR), about);
    } finally {
      packed.delete();
    }
  }

  /** The cosine above which two embeddings are of one voice, at the EER; null if not known. */
  get threshold() {
    return threshold(this.about);
  }

  /**
   * Of more than a minute, the mean of windows is taken, see windows.js.
   *
   * @param {Float32Array} waveform 16 kHz, in [-1, 1]
   * @returns {Promise<Float32Array>} (embed_dim,)
   * @throws {InputError} too little speech
   */
  async embed(waveform) {
    const { min_samples: least, sample_rate: rate } = this.about;
    if (waveform.length < least) {
      throw new InputError(
        `${waveform.length} samples are too few; give at least ${least} (${least / rate} s)`,
      );
    }
    return embedInWindows((window) => this.#embedWindow(window), waveform, rate);
  }

  async #embedWindow(waveform) {
    const input = new Tensor(waveform, [1, waveform.length]);
    try {
      // What CompiledModel.run calls. It itself takes no input whose length is free in the file:
      // it compares shapes to the -1. Below it, LiteRT resizes the network to what comes.
      const buffers = await this.#model.liteRtCompiledModel.run(0, [input.liteRtTensorBuffer]);
      const embedding = take(new Tensor(buffers[0]));
      if (!embedding.every(Number.isFinite) || !embedding.some((value) => value !== 0)) {
        throw new InputError(`${waveform.length} samples are too few for this network, or silence`);
      }
      return embedding;
    } finally {
      input.delete();
    }
  }

  /** Frees its memory. */
  close() {
    this.#model.delete();
  }
}

/** Cosine of the angle between two embeddings, in [-1, 1]. */
export function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  return Math.min(1, Math.max(-1, cosine)); // rounding leads out
}

async function loadRuntime() {
  try {
    await (getGlobalLiteRtPromise() ?? loadLiteRt(WASM)); // once a page
  } catch (error) {
    console.error(error);
    throw new InputError(`LiteRT cannot be loaded from ${WASM}; run npm install in this folder`);
  }
}

/** Calls `about` or `inflate`, whose input is ignored. */
async function ask(model, signature, output) {
  const request = new Tensor(new Int32Array(1), [1]);
  try {
    return take((await model.run(signature, { request }))[output]);
  } finally {
    request.delete();
  }
}

/** A tensor's values; LiteRT's memory is freed by hand. */
function take(tensor) {
  const values = tensor.toTypedArray();
  tensor.delete();
  return values;
}

/** The runtime may crash on a damaged file, so it never gets to see one. */
async function checkSeal(bytes, name) {
  if (bytes.length === 0) throw new InputError(`${name} is empty`);
  if (String.fromCharCode(...bytes.subarray(4, 8)) !== "TFL3") {
    throw new InputError(`${name} is not a .tflite file`);
  }
  const start = find(bytes, MAGIC);
  if (start < 0 || start + DIGEST.stop > bytes.length) {
    throw new InputError(`${name} is not a tfq-sv file, or is cut short: it has no tfq-sv seal`);
  }
  const record = new DataView(bytes.buffer, bytes.byteOffset + start);
  const version = record.getUint32(16, true);
  const length = Number(record.getBigUint64(24, true));
  if (version > VERSION) {
    throw new InputError(`${name} has format ${version}, and this page reads up to ${VERSION}`);
  }
  if (length !== bytes.length) {
    throw new InputError(
      `${name} is damaged: it has ${bytes.length} bytes and should have ${length}`,
    );
  }
  const digest = bytes.slice(start + DIGEST.start, start + DIGEST.stop);
  const blank = bytes.slice().fill(0, start + DIGEST.start, start + DIGEST.stop);
  if (hex(await sha256(blank)) !== hex(digest)) {
    throw new InputError(`${name} is damaged: its checksum does not match; get it again`);
  }
}

/** Where a pattern is first, or -1. */
function find(bytes, pattern) {
  let at = bytes.indexOf(pattern[0]);
  while (at >= 0 && !pattern.every((value, i) => bytes[at + i] === value)) {
    at = bytes.indexOf(pattern[0], at + 1);
  }
  return at;
}

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
