package tfq.sv

import java.util.Locale
import kotlin.math.abs
import kotlin.math.log10
import kotlin.math.pow

/**
 * What a recording is like. ENROLMENT.md has the rules; quality.py and quality.js keep the same ones.
 *
 * @property seconds of net speech, the frames within 30 dB of the loudest.
 * @property level mean power of those frames, dB below full scale.
 * @property clipped share of the samples that reach 99 % of full scale.
 */
internal class Quality private constructor(val seconds: Double, val level: Double, val clipped: Double) {
    companion object {
        private const val LEAST_SECONDS = 1.0
        private const val LEAST_LEVEL = -50.0
        private const val MOST_CLIPPED = 0.01
        private const val ACTIVE_DB = 30.0
        private const val CLIPPED = 0.99f

        /** Measures samples at 16 kHz. */
        fun of(samples: FloatArray): Quality {
            val frame = SpeechCheck.FRAME
            val clipped = if (samples.isEmpty()) 0.0 else samples.count { abs(it) >= CLIPPED } / samples.size.toDouble()
            if (samples.size < frame) return Quality(0.0, Double.NEGATIVE_INFINITY, clipped)
            val mean = samples.sumOf { it.toDouble() } / samples.size
            val power = DoubleArray((samples.size - frame) / SpeechCheck.STEP + 1) { number ->
                var sum = 0.0
                for (i in number * SpeechCheck.STEP until number * SpeechCheck.STEP + frame) {
                    sum += (samples[i] - mean) * (samples[i] - mean)
                }
                sum / frame
            }
            val loudest = power.max()
            if (loudest <= 0) return Quality(0.0, Double.NEGATIVE_INFINITY, clipped)
            val active = power.filter { it > loudest * 10.0.pow(-ACTIVE_DB / 10) }
            val seconds = active.size.toDouble() * SpeechCheck.STEP / SpeechCheck.RATE
            return Quality(seconds, 10 * log10(active.average()), clipped)
        }

        /** Why samples at 16 kHz should not be enrolled; empty where nothing says so. */
        fun problem(samples: FloatArray): String {
            val reason = SpeechCheck.noSpeech(samples)
            if (reason.isNotEmpty()) return "perhaps no speech: $reason"
            val found = of(samples)
            return when {
                found.seconds < LEAST_SECONDS -> say("%.1f s of speech; at least 1 s is needed", found.seconds)
                found.level < LEAST_LEVEL -> say("too quiet: %.0f dB; at least -50 dB of full scale", found.level)
                found.clipped > MOST_CLIPPED ->
                    say("clipped: %.1f %% of the samples are at full scale; at most 1 %%", 100 * found.clipped)
                else -> ""
            }
        }

        private fun say(text: String, value: Double) = String.format(Locale.ROOT, text, value)
    }
}
