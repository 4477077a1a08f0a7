package tfq.sv

import kotlin.math.ln
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.doubleOrNull

/**
 * How scores become log-likelihood ratios. ENROLMENT.md has the rules; score_calibration.py and
 * calibration.js keep the same ones.
 */
internal class Calibration private constructor(private val values: Map<String, Double>) {
    /** The LLR of a score against so many references, of so many seconds of net speech. */
    fun llr(score: Double, seconds: Double, references: Int): Double {
        val t = ln(seconds.coerceIn(values.getValue("shortest"), values.getValue("longest")))
        val n = ln(references.toDouble().coerceAtMost(values.getValue("most_references")))
        fun of(name: String): Double = values.getValue(name)
        val slope = of("score") + of("score_log_seconds") * t + of("score_log_references") * n
        return of("intercept") + of("log_seconds") * t + of("log_references") * n + slope * score
    }

    companion object {
        private val FIELDS = listOf("intercept", "score", "log_seconds", "score_log_seconds", "shortest", "longest")
        private val DEFAULTS = mapOf("log_references" to 0.0, "score_log_references" to 0.0, "most_references" to 1.0)

        /** Reads `calibration` of a file's metadata; null if that is none that can be used. */
        fun of(json: JsonElement?): Calibration? {
            val fields = json as? JsonObject ?: return null
            val values = (FIELDS + DEFAULTS.keys).associateWith { name ->
                val number = (fields[name] as? JsonPrimitive)?.takeIf { !it.isString }?.doubleOrNull
                number?.takeIf(Double::isFinite) ?: DEFAULTS[name].takeIf { name !in fields } ?: return null
            }
            val shortest = values.getValue("shortest")
            val fine = shortest > 0 && values.getValue("longest") >= shortest && values.getValue("most_references") >= 1
            return if (fine) Calibration(values) else null
        }
    }
}
