// Scores as log-likelihood ratios. ../ENROLMENT.md has the rules; score_calibration.py and
// Calibration.kt keep the same ones.

const FIELDS = ["intercept", "score", "log_seconds", "score_log_seconds", "shortest", "longest"];
const DEFAULTS = { log_references: 0, score_log_references: 0, most_references: 1 };

/**
 * The LLR of a score: how much likelier it is from one speaker than from two, as a natural
 * logarithm.
 *
 * @param {object} about the file's metadata
 * @param {number} score
 * @param {number} seconds of net speech in the tested recording
 * @param {number} references that the score is against
 * @returns {number | null} null where the file holds no calibration
 */
export function llr(about, score, seconds, references) {
  const stored = about.calibration;
  if (typeof stored !== "object" || stored === null) return null;
  const known = { ...DEFAULTS, ...stored };
  if (![...FIELDS, ...Object.keys(DEFAULTS)].every((name) => Number.isFinite(known[name]))) {
    return null;
  }
  const { shortest, longest, most_references: most } = known;
  if (!(shortest > 0 && shortest <= longest && most >= 1)) return null;
  const t = Math.log(Math.min(longest, Math.max(shortest, seconds)));
  const n = Math.log(Math.min(references, most));
  const slope = known.score + known.score_log_seconds * t + known.score_log_references * n;
  return known.intercept + known.log_seconds * t + known.log_references * n + slope * score;
}
