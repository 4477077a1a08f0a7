// Sound from a file or the microphone as the network takes it: 16 kHz, one channel, in [-1, 1].

import { oneChannel } from "./channels.js";
import { InputError } from "./encoder.js";
import { silence } from "./windows.js";

export const SAMPLE_RATE = 16000;
const MIN_SECONDS = 0.2;
const MAX_SECONDS = 3600; // browsers decode a file as a whole: 230 MB an hour and channel
const MAX_RECORDED = 60;

/**
 * Reads whatever the browser can play; resamples and mixes down.
 *
 * @param {Blob} blob
 * @param {string} name for error messages
 * @param {(text: string) => void} note is told what a person should know of the reading
 * @returns {Promise<Float32Array>}
 * @throws {InputError} not audio, too short, too long, silent
 */
export async function decode(blob, name, note = () => {}) {
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE); // decodes to its own rate
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new InputError(`${name} is no audio that this browser can read; try a WAV file`);
  }
  const seconds = audio.duration.toFixed(2);
  if (audio.duration < MIN_SECONDS) {
    throw new InputError(`${name} is too short: ${seconds} s; give at least ${MIN_SECONDS} s`);
  }
  if (audio.duration > MAX_SECONDS) {
    throw new InputError(`${name} is too long: ${seconds} s; give at most ${MAX_SECONDS} s`);
  }
  const count = audio.numberOfChannels;
  const channels = Array.from({ length: count }, (_, i) => audio.getChannelData(i));
  const { samples, taken } = oneChannel(channels);
  if (taken !== null) note(`channel ${taken + 1} of ${count} in antiphase taken`);
  const reason = silence(samples);
  if (reason) throw new InputError(`${name} is silent: ${reason}`);
  return samples;
}

/**
 * Starts to record, for MAX_RECORDED seconds at most.
 *
 * @returns {Promise<{stop: () => void, recorded: Promise<Blob>}>}
 * @throws {InputError} no microphone, or the user does not allow it
 */
export async function record() {
  let stream;
  try {
    // As it sounds: what browsers do for calls changes voices.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new InputError(
      `the microphone cannot be used (${error.message}); allow it, or choose a file`,
    );
  }
  const recorder = new MediaRecorder(stream, { audioBitsPerSecond: 128000 });
  const chunks = [];
  recorder.ondataavailable = ({ data }) => chunks.push(data);
  const recorded = new Promise((resolve) => {
    recorder.onstop = () => {
      clearTimeout(limit);
      stream.getTracks().forEach((track) => track.stop());
      resolve(new Blob(chunks, { type: recorder.mimeType }));
    };
  });
  const stop = () => recorder.state === "inactive" || recorder.stop();
  const limit = setTimeout(stop, MAX_RECORDED * 1000);
  recorder.start();
  return { stop, recorded };
}
