// The page: a network and two clips in, a score out.

import { decode, record, SAMPLE_RATE } from "./audio.js";
import { cosine, InputError, SpeakerEncoder } from "./encoder.js";
import { noSpeech } from "./speech_check.js";
import { borders } from "./windows.js";

const MODEL = "model.tflite"; // beside the page: taken without asking
const SYNTHETIC = "synthetic speech (espeak-ng)"; // as in origin.py
const $ = (id) => document.getElementById(id);

let encoder = null;
const clips = [...document.querySelectorAll(".clip")].map(makeClip);

// One thing after the other: nobody sees a score of clips that were replaced meanwhile.
let queue = Promise.resolve();
const inTurn = (job) => (queue = queue.then(job).catch(console.error));

/** Says something in a line of the page; an error so that nobody overlooks it. */
function say(line, text) {
  const failed = text instanceof Error;
  if (failed && !(text instanceof InputError)) console.error(text);
  line.textContent = failed ? text.message : text;
  line.classList.toggle("error", failed);
}

async function openModel(blob, name) {
  const line = $("model-line");
  say(line, "Loading ...");
  $("result").hidden = true;
  encoder?.close();
  encoder = null;
  try {
    encoder = await SpeakerEncoder.open(new Uint8Array(await blob.arrayBuffer()), name);
    const { embed_dim: size, origin, trials } = encoder.about;
    const known = encoder.threshold !== null && trials?.source;
    const source = known ? `, threshold from ${trials.source}` : "";
    const licence = origin?.licence ? `, licence ${origin.licence}` : "";
    const heard = origin?.speech ? `, trained on ${origin.speech}` : "";
    const synthetic = origin?.speech === SYNTHETIC ? ": no use for real voices" : "";
    const bytes = `${name}: ${blob.size.toLocaleString("en")} bytes, ${size}-dimensional embeddings`;
    say(line, `${bytes}${licence}${source}${heard}${synthetic}`);
  } catch (error) {
    say(line, error);
  }
  clips.forEach((clip) => (clip.embedding = null));
  await compare();
}

/** One of the two clips: its controls, and what they gave. */
function makeClip(box) {
  const [choose, button] = [box.querySelector("input"), box.querySelector("button")];
  const [player, line] = [box.querySelector("audio"), box.querySelector(".line")];
  const clip = { samples: null, embedding: null, line };
  let recording = null;

  async function take(blob, name) {
    $("result").hidden = player.hidden = true;
    Object.assign(clip, { samples: null, embedding: null });
    URL.revokeObjectURL(player.src);
    try {
      clip.samples = await decode(blob, name);
      player.src = URL.createObjectURL(blob);
      player.hidden = false;
      const reason = noSpeech(clip.samples);
      const doubt = reason ? `; perhaps no speech: ${reason}` : "";
      const windows = borders(clip.samples.length, SAMPLE_RATE).length;
      const long = windows > 1 ? `: embedded in ${windows} windows, whose mean is taken` : "";
      say(line, `${name}: ${(clip.samples.length / SAMPLE_RATE).toFixed(2)} s${long}${doubt}`);
    } catch (error) {
      say(line, error);
    }
    await compare();
  }

  choose.addEventListener("change", () => {
    const [file] = choose.files;
    if (file) inTurn(() => take(file, file.name));
  });
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
    choose.value = "";
    inTurn(() => take(blob, "Recording"));
  });
  return clip;
}

/** Shows the score of the two clips, as soon as there is all that it takes. */
async function compare() {
  if (!encoder || !clips.every((clip) => clip.samples)) return;
  for (const clip of clips) {
    try {
      clip.embedding ??= await encoder.embed(clip.samples);
    } catch (error) {
      return say(clip.line, error);
    }
  }
  show(cosine(...clips.map((clip) => clip.embedding)), encoder.threshold);
}

function show(score, threshold) {
  const known = threshold !== null;
  $("score").textContent = score.toFixed(4);
  $("threshold").textContent = known ? threshold.toFixed(4) : "unknown";
  const same = score >= threshold ? "Same speaker" : "Different speakers";
  $("decision").textContent = known ? same : "No decision";
  $("no-threshold").hidden = known;
  const place = (value) => `${(value + 1) * 50}%`;
  $("mark-score").style.left = place(score);
  $("mark-threshold").style.left = place(threshold);
  $("mark-threshold").hidden = !known;
  $("result").hidden = false;
}

$("model").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) inTurn(() => openModel(file, file.name));
});

if (isSecureContext) {
  inTurn(async () => {
    const beside = await fetch(MODEL);
    if (beside.ok) await openModel(await beside.blob(), MODEL);
  });
} else {
  const where = "open this page from https:// or http://localhost";
  say(
    $("model-line"),
    new InputError(`Browsers let no other page check files or record: ${where}`),
  );
  for (const control of document.querySelectorAll("input, button")) control.disabled = true;
}
