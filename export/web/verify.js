// The page: a network and two clips in, a score out.

import { decode, SAMPLE_RATE } from "./audio.js";
import { $, chooseFile, chooseModel, recordButton, say } from "./controls.js";
import { cosine } from "./encoder.js";
import { llr } from "./calibration.js";
import { measure } from "./quality.js";
import { noSpeech } from "./speech_check.js";
import { borders } from "./windows.js";

let encoder = null;
const clips = [...document.querySelectorAll(".clip")].map(makeClip);

/** One of the two clips: its controls, and what they gave. */
function makeClip(box) {
  const [choose, button] = [box.querySelector("input"), box.querySelector("button")];
  const [player, line] = [box.querySelector("audio"), box.querySelector(".line")];
  const clip = { samples: null, embedding: null, line };

  async function take(blob, name) {
    $("result").hidden = player.hidden = true;
    Object.assign(clip, { samples: null, embedding: null });
    URL.revokeObjectURL(player.src);
    try {
      let channel = "";
      clip.samples = await decode(blob, name, (text) => (channel = `; ${text}`));
      player.src = URL.createObjectURL(blob);
      player.hidden = false;
      const reason = noSpeech(clip.samples);
      const doubt = reason ? `; perhaps no speech: ${reason}` : "";
      const windows = borders(clip.samples.length, SAMPLE_RATE).length;
      const long = windows > 1 ? `: embedded in ${windows} windows, whose mean is taken` : "";
      say(line, `${name}: ${(clip.samples.length / SAMPLE_RATE).toFixed(2)} s${long}${channel}${doubt}`);
    } catch (error) {
      say(line, error);
    }
    await compare();
  }

  chooseFile(choose, (file) => take(file, file.name));
  recordButton(button, line, (blob, name) => {
    choose.value = "";
    return take(blob, name);
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
  show(cosine(...clips.map((clip) => clip.embedding)), encoder);
}

function show(score, { about, threshold }) {
  const known = threshold !== null;
  $("score").textContent = score.toFixed(4);
  const ratio = llr(about, score, measure(clips[1].samples).seconds, 1);
  $("llr").textContent = ratio?.toFixed(2) ?? "";
  $("llr-line").hidden = ratio === null;
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

chooseModel(async (opened) => {
  $("result").hidden = true;
  encoder?.close();
  encoder = opened;
  clips.forEach((clip) => (clip.embedding = null));
  await compare();
});
