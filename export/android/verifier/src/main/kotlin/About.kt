package tfq.sv

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlin.math.abs

/**
 * What a file says of itself, as far as this library works by it, checked once. FORMAT.md has the
 * rules; about.py and about.js keep the same ones.
 *
 * @property text all of it: the JSON whose fields FORMAT.md lists.
 * @property embedDim length of an embedding.
 * @property sampleRate of waveforms, in Hz.
 * @property minSamples the shortest waveform.
 * @property thresholds by name, cosines: `eer`, `far_1e-2`, `far_1e-3`. Empty until
 *   `tfq-sv evaluate --store` has measured them.
 * @property inflatedSha256 of the fast network; it names the network, whatever else the metadata say.
 * @property hasCalibration whether decisions have log-likelihood ratios: `tfq-sv threshold --store`.
 * @property form of a file that `tfq-sv inflate` wrote, "int8" or another; null of a packed file.
 */
class About private constructor(
    val text: String,
    val embedDim: Int,
    val sampleRate: Int,
    val minSamples: Int,
    val thresholds: Map<String, Double>,
    val inflatedSha256: String,
    val form: String?,
    internal val calibration: Calibration?,
    private val file: String,
) {
    val hasCalibration: Boolean get() = calibration != null

    /** The cosine from which on two voices count as one. Throws SpeakerException if there is none. */
    fun threshold(name: String): Double = thresholds[name] ?: throw SpeakerException(
        if (thresholds.isEmpty()) {
            "$file has no thresholds; measure them: tfq-sv evaluate --store"
        } else {
            "$file has no threshold '$name'; it has ${thresholds.keys.joinToString()}"
        }
    )

    internal companion object {
        private const val MOST_COSINE = 1.01

        private val COMPUTE = setOf("int8", "float32")
        private val SHA256 = Regex("[0-9a-f]{64}")

        /** Reads the JSON of the file [name]. Throws SpeakerException if nobody can work by it. */
        fun parse(text: String, name: String): About {
            val fields = StrictJson.parse(text)
                ?: throw SpeakerException("$name has wrong metadata: no JSON object; export it again")

            fun wrong(field: String): Nothing = throw SpeakerException(
                "$name has wrong metadata: $field is ${fields[field].toString().take(60)}; export it again"
            )

            fun string(field: String): String? =
                (fields[field] as? JsonPrimitive)?.takeIf { it.isString }?.content

            fun count(field: String): Int = StrictJson.whole(fields[field])?.takeIf { it > 0 } ?: wrong(field)

            if (string("input") == "features") {
                throw SpeakerException(
                    "$name takes features, and this library gives waveforms; export it with --input=waveform"
                )
            }
            if (string("input") != "waveform") wrong("input")
            if (string("compute") !in COMPUTE) wrong("compute")
            if ("score" in fields && string("score") != "cosine") wrong("score")
            val frontEnd = fields["frontend"] ?: JsonNull
            if (frontEnd !is JsonNull && frontEnd !is JsonObject) wrong("frontend")
            count("feat_dim")
            val sha256 = string("inflated_sha256")?.takeIf(SHA256::matches) ?: wrong("inflated_sha256")
            val thresholds = thresholds(fields["thresholds"]) ?: wrong("thresholds")
            val calibration = Calibration.of(fields["calibration"])
            return About(
                text, count("embed_dim"), count("sample_rate"), count("min_samples"), thresholds, sha256, string("form"),
                calibration, name
            )
        }

        /**
         * Thresholds that the trials were too few for are null in the file, and left out here. Null if
         * an entry is none of {"threshold": a cosine or null}, with a little for rounding.
         */
        private fun thresholds(json: JsonElement?): Map<String, Double>? {
            if (json == null || json is JsonNull) return emptyMap()
            if (json !is JsonObject) return null
            return buildMap {
                for ((name, entry) in json) {
                    val value = (entry as? JsonObject)?.get("threshold") as? JsonPrimitive ?: return null
                    if (value is JsonNull) continue
                    val cosine = StrictJson.number(value) ?: return null
                    if (abs(cosine) > MOST_COSINE) return null // all voices would be one, or none
                    put(name, cosine)
                }
            }
        }
    }
}
