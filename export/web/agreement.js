// Whether the recordings of an enrolment are of one voice. ../ENROLMENT.md has the rule; agreement.py
// and Agreement.kt keep the same one.

import { score } from "./decision.js";

const LAXER = 0.1; // than the threshold at the EER: three right recordings may raise a false alarm
const ROUNDING = 1e-6; // scores whose difference is rounding are equal

/** From which score on recordings of an enrolment count as one voice; null if not known, as given. */
export function leastScore(threshold) {
  return threshold === null ? null : threshold - LAXER * Math.abs(threshold);
}

/**
 * Recordings that do not fit the others, and the score of each. While the one that
 * scores lowest against all others stays under the threshold, it is taken out; of equal ones, the last.
 *
 * @param {Float32Array[]} units embeddings of length 1
 * @param {number} threshold
 * @returns {Map<number, number>}
 */
export function outsiders(units, threshold) {
  let left = [...units.keys()];
  const out = [];
  while (left.length > 1) {
    const scores = left.map((i) =>
      score(left.filter((j) => j !== i).map((j) => units[j]), units[i]),
    );
    const least = Math.min(...scores) + ROUNDING;
    const lowest = scores.findLastIndex((one) => one <= least);
    if (scores[lowest] >= threshold) break;
    const gone = left[lowest];
    out.push([gone, scores[lowest]]);
    left = left.filter((i) => i !== gone);
  }
  return new Map(out.sort(([a], [b]) => a - b));
}

/**
 * Which recordings are there twice or do not fit the others; empty where all is well. All fit where no
 * threshold is known (null).
 */
export function problem(units, threshold) {
  for (const [i, one] of units.entries()) {
    const again = units.findIndex((other, j) => j > i && other.every((x, n) => x === one[n]));
    if (again > 0) return `recording ${again + 1} is the same as recording ${i + 1}; give another`;
  }
  const odd = threshold === null ? new Map() : outsiders(units, threshold);
  if (!odd.size) return "";
  const named = [...odd.keys()].map((i) => `recording ${i + 1}`).join(" and ");
  const figures = [...odd.values()].map((figure) => figure.toFixed(2)).join(", ");
  const [verb, what] = odd.size === 1 ? ["does", "score is"] : ["do", "scores are"];
  const needed = `${threshold.toFixed(2)} is needed`;
  return `${named} ${verb} not fit the others: the ${what} ${figures}, and ${needed}; record again`;
}
