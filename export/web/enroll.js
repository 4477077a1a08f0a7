// The page of enrolled speakers: some recordings of each in, whose voice a clip is out.

import { decode, SAMPLE_RATE } from "./audio.js";
import { $, chooseFile, chooseModel, inTurn, recordButton, say } from "./controls.js";
import { InputError } from "./encoder.js";
import { problem } from "./quality.js";
import { SpeakerVerifier } from "./verifier.js";

const LOSS =
  "Who is enrolled is not saved, and another network does not know them. Go on without them?";
let encoder = null;
let verifier = null;
let recordings = []; // of the one who is being enrolled: {said, samples}
let complaints = []; // about the recordings that were chosen or made last
let unsaved = false;
let test = null; // whose voice is asked for: {name, samples}

/** Shows what there is, and answers whose voice the clip is. */
function show() {
  draw();
  return identify();
}

/** Shows what there is, and lets people press what makes sense. */
function draw() {
  const { names } = verifier ?? { names: [] };
  fill($("speakers"), names.map((name) => row(name, "Remove", () => remove(name))));
  fill($("recordings"), recordings.map((one) => row(one.said, "Discard", () => discard(one))));
  $("load").disabled = !verifier;
  $("save").disabled = !names.length;
  $("enroll").disabled = !verifier || !recordings.length;
}

/** Replaces a list's rows; the keyboard's focus stays at its place. */
function fill(list, rows) {
  const at = [...list.children].findIndex((item) => item.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (at < 0) return;
  const heading = list.closest("section").querySelector("h2");
  heading.tabIndex = -1;
  (list.querySelectorAll("button")[Math.min(at, rows.length - 1)] ?? heading).focus();
}

/** A line of a list with a button. */
function row(text, action, act) {
  const [item, button] = [document.createElement("li"), document.createElement("button")];
  button.type = "button";
  button.textContent = action;
  button.setAttribute("aria-label", `${action} ${text}`);
  button.addEventListener("click", () => inTurn(act));
  item.append(text, " ", button);
  return item;
}

async function add(blob, name) {
  try {
    let channel = "";
    const samples = await decode(blob, name, (text) => (channel = `; ${text}`));
    const reason = problem(samples);
    const length = `${(samples.length / SAMPLE_RATE).toFixed(2)} s${channel}`;
    recordings.push({ samples, said: `${name}: ${length}${reason ? `; ${reason}` : ""}` });
    if (reason) complaints.push(`${name} will be refused: record again.`);
  } catch (error) {
    if (!(error instanceof InputError)) console.error(error);
    complaints.push(error.message);
  }
  say($("enroll-line"), complaints.length ? new InputError(complaints.join(" ")) : "");
  draw();
}

function discard(one) {
  recordings = recordings.filter((other) => other !== one);
  draw();
}

function remove(name) {
  verifier.remove(name);
  unsaved = true;
  say($("speakers-line"), `Removed ${name}; a file that you saved still holds the voice.`);
  return show();
}

async function enroll(name) {
  const known = verifier.names.includes(name);
  try {
    await verifier.enroll(name, recordings.map((one) => one.samples));
    const count = `${recordings.length} recording${recordings.length === 1 ? "" : "s"}`;
    say($("enroll-line"), `${known ? "Replaced" : "Enrolled"} ${name} by ${count}.`);
    say($("speakers-line"), "Save the file to keep them. It is biometric data.");
    recordings = [];
    unsaved = true;
    if ($("name").value.trim() === name) $("name").value = "";
  } catch (error) {
    say($("enroll-line"), error);
  }
  await show();
}

async function ask(blob, name) {
  test = null;
  try {
    test = { name, samples: await decode(blob, name) };
  } catch (error) {
    say($("test-line"), error);
  }
  await show();
}

/** Says whose voice the clip is, as soon as there is all that it takes. */
async function identify() {
  $("result").hidden = true;
  if (!test) return;
  const clip = `${test.name}: ${(test.samples.length / SAMPLE_RATE).toFixed(2)} s`;
  if (!verifier) return say($("test-line"), `${clip}; choose a network`);
  if (!verifier.names.length) return say($("test-line"), `${clip}; nobody is enrolled yet`);
  try {
    const found = await verifier.identify(test.samples);
    const next = found.runnerUp ? `, then ${found.runnerUp}, ${found.margin.toFixed(4)} lower` : "";
    say($("test-line"), found.doubt ? `${clip}; perhaps no speech: ${found.doubt}` : clip);
    $("decision").textContent = found.speaker ?? "Nobody who is enrolled";
    $("detail").textContent =
      `Most like ${found.name}, score ${found.score.toFixed(4)}${next}; ` +
      `threshold ${found.threshold.toFixed(4)}`;
    $("result").hidden = false;
  } catch (error) {
    say($("test-line"), error);
  }
}

async function load(file) {
  try {
    verifier.load(new Uint8Array(await file.arrayBuffer()), file.name);
    unsaved = false;
    say($("speakers-line"), `${file.name}: ${verifier.names.length} enrolled.`);
  } catch (error) {
    say($("speakers-line"), error);
  }
  await show();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([verifier.save()], { type: "application/json" }));
  link.download = "speakers.json";
  link.click();
  URL.revokeObjectURL(link.href);
  unsaved = false;
  say($("speakers-line"), "Saved as speakers.json. It is biometric data: keep it safe.");
}

/** Takes another network. The same one keeps who is enrolled; so does every one that is refused. */
function replace(opened) {
  if (!opened) return show();
  const next = new SpeakerVerifier(opened);
  const same = opened.about.inflated_sha256 === encoder?.about.inflated_sha256;
  if (same) {
    next.load(new TextEncoder().encode(verifier.save()));
  } else {
    if (verifier?.names.length && unsaved && !confirm(LOSS)) {
      opened.close();
      say($("model-line"), new InputError("The network before stays: save those who are enrolled."));
      return show();
    }
    unsaved = false;
    say($("speakers-line"), "Nobody yet. What is not saved is gone when the page closes.");
  }
  encoder?.close();
  [encoder, verifier] = [opened, next];
  return show();
}

$("files").addEventListener("change", ({ target }) => {
  complaints = [];
  for (const file of target.files) inTurn(() => add(file, file.name));
  target.value = ""; // the list shows them, and one that was discarded can be chosen again
});
recordButton($("record"), $("enroll-line"), (blob, name) => {
  complaints = [];
  return add(blob, name);
});
$("enroll").addEventListener("click", () => {
  const name = $("name").value.trim(); // not what is typed while others have their turn
  $("enroll").disabled = true;
  say($("enroll-line"), "Enrolling ...");
  inTurn(() => enroll(name));
});
chooseFile($("load"), load);
$("save").addEventListener("click", () => inTurn(save));
chooseFile($("test"), (file) => ask(file, file.name));
recordButton($("test-record"), $("test-line"), (blob, name) => {
  $("test").value = "";
  return ask(blob, name);
});
addEventListener("beforeunload", (event) => {
  if (unsaved && verifier?.names.length) event.preventDefault();
});
chooseModel(replace);
