package tfq.sv

import java.util.Locale

/**
 * Whether the recordings of an enrolment are of one voice. ENROLMENT.md has the rule; agreement.py and
 * agreement.js keep the same one.
 */
internal object Agreement {
    /**
     * Recordings that do not fit the others, and the best score of each with them. The others are the
     * largest group that hangs together by scores that reach the threshold; of equally large ones the first.
     *
     * @param units embeddings of length 1.
     */
    fun outsiders(units: List<FloatArray>, threshold: Double): Map<Int, Double> {
        val scores = units.map { one -> units.map { Decision.score(listOf(one), it) } }
        val group = groups(units.size) { i, j -> scores[i][j] >= threshold }.maxByOrNull { it.size } ?: emptySet()
        return units.indices.filter { it !in group }.associateWith { i -> group.maxOf { scores[i][it] } }
    }

    /** Which recordings do not fit the others; empty where all do, or no threshold is known. */
    fun problem(units: List<FloatArray>, threshold: Double?): String {
        val odd = if (threshold == null) emptyMap() else outsiders(units, threshold)
        if (odd.isEmpty()) return ""
        val named = odd.keys.joinToString(" and ") { "recording ${it + 1}" }
        val figures = odd.values.joinToString { say(it) }
        val (verb, best) = if (odd.size == 1) "does" to "best score is" else "do" to "best scores are"
        return "$named $verb not fit the others: the $best $figures, and ${say(threshold!!)} is needed; record again"
    }

    private fun say(score: Double) = String.format(Locale.ROOT, "%.2f", score)

    /** What hangs together, in the order of each group's first member. */
    private fun groups(size: Int, linked: (Int, Int) -> Boolean): List<Set<Int>> {
        val groups = mutableListOf<Set<Int>>()
        for (first in 0 until size) {
            if (groups.any { first in it }) continue
            val group = linkedSetOf(first)
            val next = ArrayDeque(group)
            while (next.isNotEmpty()) {
                val i = next.removeFirst()
                (0 until size).filter { linked(i, it) && group.add(it) }.forEach(next::addLast)
            }
            groups += group
        }
        return groups
    }
}
