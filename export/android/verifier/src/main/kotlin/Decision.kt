package tfq.sv

import kotlin.math.sqrt

/**
 * How like a voice is to an enrolled one.
 *
 * @property name who was enrolled.
 * @property score cosine, in [-1, 1].
 * @property threshold from which on the voices count as one.
 * @property doubt why the recording is perhaps no speech; empty where nothing says so.
 * @property llr natural logarithm of how much likelier the score is from the enrolled speaker than
 *   from another; null where the file holds no calibration.
 */
data class Verification(
    val name: String,
    val score: Double,
    val threshold: Double,
    val doubt: String = "",
    val llr: Double? = null,
) {
    /** Whether the voices count as one. */
    val accepted: Boolean get() = score >= threshold
}

/**
 * Whom a voice is most like, and whether it is likely theirs: it may be a stranger's.
 *
 * @property name whom it is most like.
 * @property score cosine, in [-1, 1].
 * @property threshold from which on the voices count as one.
 * @property runnerUp the second best; null if one speaker is enrolled.
 * @property runnerUpScore their score.
 * @property doubt why the recording is perhaps no speech; empty where nothing says so.
 */
data class Identification(
    val name: String,
    val score: Double,
    val threshold: Double,
    val runnerUp: String? = null,
    val runnerUpScore: Double? = null,
    val doubt: String = "",
) {
    /** Whether the voice is likely that speaker's. */
    val accepted: Boolean get() = score >= threshold

    /** Whose voice it is; null if it is nobody's that is enrolled. */
    val speaker: String? get() = name.takeIf { accepted }

    /** How much better the best is than the runner-up; null if there is none. */
    val margin: Double? get() = runnerUpScore?.let { score - it }
}

/** Cosine of the angle between two embeddings, in [-1, 1]. */
fun cosine(a: FloatArray, b: FloatArray): Double {
    if (a.size != b.size) throw SpeakerException("embeddings of ${a.size} and ${b.size} values do not compare")
    return (dot(a, b) / (length(a) * length(b))).coerceIn(-1.0, 1.0) // rounding leads out
}

private fun dot(a: FloatArray, b: FloatArray): Double = a.indices.sumOf { a[it].toDouble() * b[it] }

private fun length(a: FloatArray): Double {
    val length = sqrt(dot(a, a))
    if (!length.isFinite() || length == 0.0) {
        throw SpeakerException("an embedding of length $length has no direction; record again")
    }
    return length
}

/** The rules of deciding. ENROLMENT.md has them; decision.py and decision.js keep the same ones. */
internal object Decision {
    /** Scales an embedding to length 1. */
    fun unit(embedding: FloatArray): FloatArray {
        val length = length(embedding)
        return FloatArray(embedding.size) { (embedding[it] / length).toFloat() }
    }

    // Of two recordings of one speaker.
    private const val TYPICAL_COSINE = 0.7

    /** The score of a voice against a speaker's references; all of length 1. */
    fun score(references: List<FloatArray>, test: FloatArray): Double {
        val n = references.size
        val mean = DoubleArray(test.size) { d -> references.sumOf { it[d].toDouble() } / n }
        val length = sqrt(mean.sumOf { it * it })
        if (length == 0.0) return 0.0 // They cancel out.
        val cosine = (mean.indices.sumOf { mean[it] * test[it] } / length).coerceIn(-1.0, 1.0)
        // The mean of several is nearer to any voice; so that thresholds mean what they do for one:
        return cosine * sqrt((1 + (n - 1) * TYPICAL_COSINE) / n)
    }

    /** Whom a voice is most like. */
    fun best(speakers: Map<String, List<FloatArray>>, test: FloatArray, threshold: Double): Identification {
        val ranked = speakers.map { (name, references) -> name to score(references, test) }
            .sortedByDescending { it.second } // stable: of equal ones the first stays first
        val (name, score) = ranked.firstOrNull() ?: throw SpeakerException("nobody is enrolled; call enroll")
        val second = ranked.getOrNull(1)
        return Identification(name, score, threshold, second?.first, second?.second)
    }
}
