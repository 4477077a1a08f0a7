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
 * Takes each file that people choose, in turn; the same one again, which may have changed, too.
 *
 * @param {HTMLInputElement} input
 * @param {(file: File) => Promise<void>} take
 */
export function chooseFile(input, take) {
  input.addEventListener("click", () => (input.value = ""));
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) inTurn(() => take(file));
  });
}

/**
 * Lets people choose the network, and takes the one in the page's folder if there is one.
 *
 * @param {(encoder: SpeakerEncoder | null) => Promise<void>} after closes the one in use, if it is
 *   replaced; null: the file is no network
 */
export function chooseModel(after) {
  const line = $("model-line");

  async function open(blob, name) {
    say(line, "Loading ...");
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

  chooseFile($("model"), (file) => open(file, file.name));
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
  let [recording, asking] = [null, false];
  button.addEventListener("click", async () => {
    if (recording) return recording.stop();
    if (asking) return; // for the microphone; a disabled button would lose the keyboard's focus
    asking = true;
    try {
      recording = await record();
      button.textContent = "Stop";
      say(line, "Recording: speak for a few seconds, then stop.");
    } catch (error) {
      say(line, error);
    }
    asking = false;
    if (!recording) return;
    const blob = await recording.recorded;
    recording = null;
    button.textContent = "Record";
    inTurn(() => take(blob, "Recording"));
  });
}
