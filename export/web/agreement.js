// Whether the recordings of an enrolment are of one voice. ../ENROLMENT.md has the rule; agreement.py
// and Agreement.kt keep the same one.

import { dot } from "./decision.js";

/**
 * Recordings that do not fit the others, and the best score of each with them. The others are the
 * largest group that hangs together by scores that reach the threshold; of equally large ones the
 * first.
 *
 * @param {Float32Array[]} units embeddings of length 1
 * @param {number} threshold
 * @returns {Map<number, number>}
 */
export function outsiders(units, threshold) {
  const scores = units.map((one) => units.map((other) => dot(one, other)));
  let largest = new Set();
  for (const group of groups(units.length, (i, j) => scores[i][j] >= threshold)) {
    if (group.size > largest.size) largest = group;
  }
  const odd = [...units.keys()].filter((i) => !largest.has(i));
  return new Map(odd.map((i) => [i, Math.max(...[...largest].map((j) => scores[i][j]))]));
}

/** Which recordings do not fit the others; empty where all do, or no threshold is known (null). */
export function problem(units, threshold) {
  const odd = threshold === null ? new Map() : outsiders(units, threshold);
  if (!odd.size) return "";
  const named = [...odd.keys()].map((i) => `recording ${i + 1}`).join(" and ");
  const figures = [...odd.values()].map((score) => score.toFixed(2)).join(", ");
  const [verb, best] = odd.size === 1 ? ["does", "best score is"] : ["do", "best scores are"];
  const needed = `${threshold.toFixed(2)} is needed`;
  return `${named} ${verb} not fit the others: the ${best} ${figures}, and ${needed}; record again`;
}

/** What hangs together, in the order of each group's first member. */
function groups(size, linked) {
  const found = [];
  for (let first = 0; first < size; first++) {
    if (found.some((group) => group.has(first))) continue;
    const group = new Set([first]);
    // A set that grows while it is walked is walked to its new end.
    for (const i of group) {
      for (let j = 0; j < size; j++) if (linked(i, j)) group.add(j);
    }
    found.push(group);
  }
  return found;
}
