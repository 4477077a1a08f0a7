// Several channels become one, as `_to_mono` in Python's tfq_sv.data.audio decides it.

const ANTIPHASE = 0.5;

/**
 * The mix of all channels; or the loudest one, where the mix is the difference of channels in
 * antiphase and no speech is left in it.
 *
 * @param {Float32Array[]} channels of one length
 * @returns {{samples: Float32Array, taken: number | null}} `taken` is the channel, from 0; null is
 *     the mix
 */
export function oneChannel(channels) {
  const count = channels.length;
  if (count === 1) return { samples: channels[0], taken: null };
  const mix = new Float32Array(channels[0].length);
  for (const values of channels) for (let i = 0; i < mix.length; i++) mix[i] += values[i] / count;
  const powers = channels.map(variance);
  const total = powers.reduce((sum, power) => sum + power, 0);
  if (variance(mix) >= (ANTIPHASE * total) / count ** 2) return { samples: mix, taken: null };
  const taken = powers.indexOf(Math.max(...powers));
  return { samples: channels[taken], taken };
}

function variance(values) {
  let sum = 0;
  let squares = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  for (const value of values) squares += (value - mean) ** 2;
  return squares / values.length;
}
