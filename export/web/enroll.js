// The page of enrolled speakers: some recordings of each in, whose voice a clip is out.

import { decode, SAMPLE_RATE } from "./audio.js";
import { $, chooseModel, inTurn, recordButton, say } from "./controls.js";
import { problem } from "./quality.js";
import { SpeakerVerifier } from "./verifier.js";

let encoder = null;
let verifier = null;
let recordings = []; // of the one who is being enrolled: {said, samples}
let test = null; // whose voice is asked for: {name, samples}

/** Shows what there is, lets people press what makes sense, and answers whose voice it is. */
async function show() {
  const { names } = verifier ?? { names: [] };
  $("speakers").replaceChildren(...names.map((name) => row(name, "Remove", () => remove(name))));
  $("recordings").replaceChildren(
    ...recordings.map((one) => row(one.said, "Discard", () => discard(one))),
  );
  $("load").disabled = !verifier;
  $("save").disabled = !names.length;
  $("enroll").disabled = !verifier || !recordings.length;
  await identify();
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
    say($("enroll-line"), reason ? "That one will be refused: record again." : "");
  } catch (error) {
    say($("enroll-line"), error);
  }
  await show();
}

function discard(one) {
  recordings = recordings.filter((other) => other !== one);
  return show();
}

function remove(name) {
  verifier.remove(name);
  say($("speakers-line"), `Removed ${name}; a file that you saved still holds the voice.`);
  return show();
}

async function enroll() {
  const name = $("name").value.trim();
  const known = verifier.names.includes(name);
  try {
    await verifier.enroll(name, recordings.map((one) => one.samples));
    const count = `${recordings.length} recording${recordings.length === 1 ? "" : "s"}`;
    say($("enroll-line"), `${known ? "Replaced" : "Enrolled"} ${name} by ${count}.`);
    say($("speakers-line"), "Save the file to keep them. It is biometric data.");
    recordings = [];
    $("name").value = "";
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
  say($("speakers-line"), "Saved as speakers.json. It is biometric data: keep it safe.");
}

$("files").addEventListener("change", ({ target }) => {
  for (const file of target.files) inTurn(() => add(file, file.name));
  target.value = ""; // the list shows them, and one that was discarded can be chosen again
});
recordButton($("record"), $("enroll-line"), add);
$("enroll").addEventListener("click", () => inTurn(enroll));
$("load").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) inTurn(() => load(file));
});
$("save").addEventListener("click", () => inTurn(save));
$("test").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) inTurn(() => ask(file, file.name));
});
recordButton($("test-record"), $("test-line"), (blob, name) => {
  $("test").value = "";
  return ask(blob, name);
});

chooseModel(
  () => {
    encoder?.close();
    encoder = verifier = null;
    show();
  },
  (opened) => {
    encoder = opened;
    verifier = opened && new SpeakerVerifier(opened);
    if (opened) say($("speakers-line"), "Nobody yet. What is not saved is gone when the page closes.");
    return show();
  },
);
