package tfq.sv

import java.util.Locale
import kotlin.math.abs

/**
 * Whether the recordings of an enrolment are of one voice. ENROLMENT.md has the rule; agreement.py and
 * agreement.js keep the same one.
 */
internal object Agreement {
    // Than the threshold at the EER: three right recordings may raise a false alarm.
    private const val LAXER = 0.1

    // Scores whose difference is rounding are equal.
    private const val ROUNDING = 1e-6

    /** From which score on recordings of an enrolment count as one voice; null if not known, as given. */
    fun leastScore(threshold: Double?): Double? = threshold?.let { it - LAXER * abs(it) }

    /**
     * Recordings that do not fit the others, and the score of each. While the one
     * that scores lowest against all others stays under the threshold, it is taken out; of equal ones, the last.
     *
     * @param units embeddings of length 1.
     */
    fun outsiders(units: List<FloatArray>, threshold: Double): Map<Int, Double> {
        val left = units.indices.toMutableList()
        val out = sortedMapOf<Int, Double>()
        while (left.size > 1) {
            val scores = left.associateWith { i -> Decision.score((left - i).map { units[it] }, units[i]) }
            val least = scores.values.min() + ROUNDING
            val lowest = left.last { scores.getValue(it) <= least }
            if (scores.getValue(lowest) >= threshold) break
            out[lowest] = scores.getValue(lowest)
            left.remove(lowest)
        }
        return out
    }

    /**
     * Which recordings are there twice or do not fit the others; empty where all is well. All fit where no
     * threshold is known.
     */
    fun problem(units: List<FloatArray>, threshold: Double?): String {
        for (i in units.indices) {
            val again = (i + 1 until units.size).firstOrNull { units[it].contentEquals(units[i]) } ?: continue
            return "recording ${again + 1} is the same as recording ${i + 1}; give another"
        }
        val odd = if (threshold == null) emptyMap() else outsiders(units, threshold)
        if (odd.isEmpty()) return ""
        val named = odd.keys.joinToString(" and ") { "recording ${it + 1}" }
        val figures = odd.values.joinToString { say(it) }
        val (verb, what) = if (odd.size == 1) "does" to "score is" else "do" to "scores are"
        return "$named $verb not fit the others: the $what $figures, and ${say(threshold!!)} is needed; record again"
    }

    private fun say(score: Double) = String.format(Locale.ROOT, "%.2f", score)
}
