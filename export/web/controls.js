// What both pages have: lines that say something, the network's file, a button that records.

import { record } from "./audio.js";
import { InputError, SpeakerEncoder } from "./encoder.js";

const MODEL = "model.tflite"; // in the page's folder: taken without asking
const SYNTHETIC = "synthetic speech (espeak-ng)"; // as in origin.py
export const $ = (id) => document.getElementById(id);

// One thing after the other: nobody sees a score of clips that were replaced meanwhile.
let queue = Promise.resolve();
export const inTurn = (job) => (queue = queue.then(job).catch(console.error));

/** Says something in a line of the page; an error so that nobody overlooks it. */
export function say(line, text) {
  const failed = text instanceof Error;
  if (failed && !(text instanceof InputError)) console.error(text);
  line.textContent = failed ? text.message : text;
  line.classList.toggle("error", failed);
}

/**
 * Lets people choose the network, and takes the one in the page's folder if there is one.
 *
 * @param {() => void} before closes the network that is in use
 * @param {(encoder: SpeakerEncoder | null) => Promise<void>} after null: the file is no network
 */
export function chooseModel(before, after) {
  const line = $("model-line");

  async function open(blob, name) {
    say(line, "Loading ...");
    before();
    let encoder = null;
    try {
      encoder = await SpeakerEncoder.open(new Uint8Array(await blob.arrayBuffer()), name);
      const { embed_dim: size, origin, trials } = encoder.about;
      const known = encoder.threshold !== null && trials?.source;
      const source = known ? `, threshold from ${trials.source}` : "";
      const licence = origin?.licence ? `, licence ${origin.licence}` : "";
      const heard = origin?.speech ? `, speech: ${origin.speech}` : "";
      const synthetic = origin?.speech === SYNTHETIC ? ": no use for real voices" : "";
      const bytes = `${blob.size.toLocaleString("en")} bytes, ${size}-dimensional embeddings`;
      say(line, `${name}: ${bytes}${licence}${source}${heard}${synthetic}`);
    } catch (error) {
      say(line, error);
    }
    await after(encoder);
  }

  $("model").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) inTurn(() => open(file, file.name));
  });
  if (isSecureContext) {
    inTurn(async () => {
      const given = await fetch(MODEL);
      if (given.ok) await open(await given.blob(), MODEL);
    });
  } else {
    const where = "open this page from https:// or http://localhost";
    say(line, new InputError(`Browsers let no other page check files or record: ${where}`));
    for (const control of document.querySelectorAll("input, button")) control.disabled = true;
  }
}

/**
 * Makes a button start and stop recordings.
 *
 * @param {HTMLButtonElement} button
 * @param {HTMLElement} line says what to do
 * @param {(blob: Blob, name: string) => Promise<void>} take what was recorded, in turn
 */
export function recordButton(button, line, take) {
  let recording = null;
  button.addEventListener("click", async () => {
    if (recording) return recording.stop();
    button.disabled = true;
    try {
      recording = await record();
      button.textContent = "Stop";
      say(line, "Recording: speak for a few seconds, then stop.");
    } catch (error) {
      say(line, error);
    }
    button.disabled = false;
    if (!recording) return;
    const blob = await recording.recorded;
    recording = null;
    button.textContent = "Record";
    inTurn(() => take(blob, "Recording"));
  });
}
