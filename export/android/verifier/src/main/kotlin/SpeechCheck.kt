package tfq.sv

import java.util.Locale
import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sin
import kotlin.math.sqrt

/**
 * What is surely no speech: clicks, tones, hum and noise. Python's `tfq_sv.data.speech_check` explains
 * the rules; tests/data/speech_check.json has cases for both and for the page.
 */
internal object SpeechCheck {
    const val RATE = 16000
    const val FRAME = 512
    const val STEP = 256
    private val EDGES = intArrayOf(2, 5, 8, 11, 14, 18, 23, 29, 36, 45, 56, 70, 87, 108, 134, 167, 208)
    private const val FIRST = 2 // bin of the power spectra
    private const val ACTIVE_DB = 30.0
    private const val LEAST_SAMPLES = RATE / 2
    private const val CLICK_SECONDS = 0.04
    private const val TONE = 0.99
    private const val CLICKS = 0.8
    private const val STEADY_SECONDS = 1.0
    private const val STEADY_DB = 2.0
    private const val GROUP = 4
    private const val FLOOR_DB = -50.0
    private val ROUNDING = FRAME * 2.0.pow(-40) // 120 dB below the peak, what is left of a line
    private const val PULSES = "clicks: short pulses and nothing else"
    private const val SQUARES = FRAME * (FRAME * FRAME - 1.0) / 12 // of the times of a frame
    private const val MOST_FRAMES = 60 * RATE / STEP // a minute is enough to judge by
    private val HANN = DoubleArray(FRAME) { 0.5 - 0.5 * cos(2 * PI * it / (FRAME - 1)) }

    /** Why samples at 16 kHz are no speech, in words; empty where nothing says so. */
    fun noSpeech(samples: FloatArray): String {
        if (samples.size < LEAST_SAMPLES) return ""
        val frames = middle(samples)
        val power = frames.map { frame -> frame.sumOf { it * it } }
        val loudest = power.max()
        val low = samples.minOf { it.toDouble() }
        val high = samples.maxOf { it.toDouble() }
        val rounding = ROUNDING * max(-low, high).pow(2)
        if (!loudest.isFinite() || loudest <= rounding || high - low <= 2.0.pow(-15)) return "a constant"
        val chosen = power.map { it > loudest * 10.0.pow(-ACTIVE_DB / 10) }
        val active = frames.filterIndexed { i, _ -> chosen[i] }
        val seconds = active.size.toDouble() * STEP / RATE
        if (seconds <= CLICK_SECONDS) return say("a click: all sound lies in %.0f ms", 1000 * seconds)
        if (longestRun(chosen).toDouble() * STEP / RATE <= CLICK_SECONDS) return PULSES
        val spectra = active.map(::powerSpectrum).filter { it.sum() > 0 }
        if (spectra.isEmpty()) return "a constant"
        val share = median(spectra.map(::strongest))
        if (share > TONE) return say("a tone or hum: %.0f %% of the power lies at one frequency", 100 * share)
        if (median(spectra.map(::flatness)) > CLICKS) return PULSES
        val change = spectralChange(spectra)
        if (seconds >= STEADY_SECONDS && change < STEADY_DB) {
            return say("steady noise or hum: the spectrum changes by %.1f dB; speech has $STEADY_DB or more", change)
        }
        return ""
    }

    private fun say(text: String, value: Double) = String.format(Locale.ROOT, text, value)

    /** How many frames in a row are chosen, at most. */
    private fun longestRun(chosen: List<Boolean>): Int {
        var run = 0
        return chosen.maxOf { one ->
            run = if (one) run + 1 else 0
            run
        }
    }

    /** Frames of the middle minute, each less the line that fits it best. */
    private fun middle(samples: FloatArray): List<DoubleArray> {
        val all = (samples.size - FRAME) / STEP + 1
        val start = max(0, (all - MOST_FRAMES) / 2) * STEP
        return List(min(all, MOST_FRAMES)) { frame ->
            val values = DoubleArray(FRAME) { samples[start + frame * STEP + it].toDouble() }
            val mean = values.average()
            val slope = values.indices.sumOf { (values[it] - mean) * time(it) } / SQUARES
            DoubleArray(FRAME) { values[it] - mean - slope * time(it) }
        }
    }

    private fun time(n: Int) = n - (FRAME - 1) / 2.0

    /** Bins 2 to 256 of a frame under a Hann window. */
    private fun powerSpectrum(frame: DoubleArray): DoubleArray {
        val real = DoubleArray(FRAME) { frame[it] * HANN[it] }
        val imaginary = DoubleArray(FRAME)
        fft(real, imaginary)
        return DoubleArray(FRAME / 2 + 1 - FIRST) {
            val bin = it + FIRST
            real[bin] * real[bin] + imaginary[bin] * imaginary[bin]
        }
    }

    /** In place; the length is a power of two. */
    private fun fft(real: DoubleArray, imaginary: DoubleArray) {
        val n = real.size
        var j = 0
        for (i in 1 until n) {
            var bit = n shr 1
            while (j and bit != 0) {
                j = j xor bit
                bit = bit shr 1
            }
            j = j or bit
            if (i < j) {
                real[i] = real[j].also { real[j] = real[i] }
                imaginary[i] = imaginary[j].also { imaginary[j] = imaginary[i] }
            }
        }
        var size = 2
        while (size <= n) {
            val half = size / 2
            for (k in 0 until half) {
                val c = cos(2 * PI * k / size)
                val s = -sin(2 * PI * k / size)
                for (a in k until n step size) {
                    val b = a + half
                    val x = real[b] * c - imaginary[b] * s
                    val y = real[b] * s + imaginary[b] * c
                    real[b] = real[a] - x
                    imaginary[b] = imaginary[a] - y
                    real[a] += x
                    imaginary[a] += y
                }
            }
            size *= 2
        }
    }

    /** The share of power in the strongest bin and two on each side. */
    private fun strongest(spectrum: DoubleArray): Double {
        val best = spectrum.indices.maxByOrNull { spectrum[it] }!!
        val near = (max(0, best - 2)..min(spectrum.size - 1, best + 2)).sumOf { spectrum[it] }
        return near / spectrum.sum()
    }

    private fun flatness(spectrum: DoubleArray): Double {
        val mean = spectrum.average()
        return exp(spectrum.sumOf { ln(max(it, 1e-12 * mean)) } / spectrum.size) / mean
    }

    /** How much power moves between bands over time, dB. */
    private fun spectralChange(spectra: List<DoubleArray>): Double {
        val groups = spectra.size / GROUP
        if (groups == 0) return Double.POSITIVE_INFINITY
        val ends = EDGES.drop(1) + (FRAME / 2 + 1)
        val shares = List(groups) { group ->
            val bands = DoubleArray(EDGES.size) { band ->
                (0 until GROUP).sumOf { i ->
                    (EDGES[band] until ends[band]).sumOf { spectra[group * GROUP + i][it - FIRST] }
                }
            }
            val whole = bands.sum()
            bands.map { max(10 * log10(max(it / whole, 1e-12)), FLOOR_DB) }
        }
        val variances = EDGES.indices.map { band ->
            val values = shares.map { it[band] }
            val mean = values.average()
            values.sumOf { (it - mean) * (it - mean) } / groups
        }
        return sqrt(variances.average())
    }

    private fun median(values: List<Double>): Double {
        val sorted = values.sorted()
        val half = sorted.size / 2
        return if (sorted.size % 2 == 1) sorted[half] else (sorted[half - 1] + sorted[half]) / 2
    }
}
