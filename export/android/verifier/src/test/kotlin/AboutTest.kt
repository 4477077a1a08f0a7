package tfq.sv

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class AboutTest {
    private val sha256 = "0123456789abcdef".repeat(4)
    private val thresholds = """{"eer": {"threshold": 0.25, "eer": 0.01}, "far_1e-3": {"threshold": null}}"""

    private fun json(vararg changes: Pair<String, String>): String {
        val fields = mapOf(
            "input" to "\"waveform\"",
            "compute" to "\"int8\"",
            "feat_dim" to "80",
            "embed_dim" to "128",
            "sample_rate" to "16000",
            "min_samples" to "3200",
            "thresholds" to thresholds,
            "inflated_sha256" to "\"$sha256\"",
            "unknown" to "[1]",
        ) + changes
        return fields.entries.joinToString(",", "{", "}") { "\"${it.key}\":${it.value}" }
    }

    private fun refusal(text: String): String =
        assertThrows(SpeakerException::class.java) { About.parse(text, "a.tflite") }.message!!

    @Test
    fun readsWhatTheLibraryWorksBy() {
        val about = About.parse(json(), "a.tflite")
        assertEquals(listOf(128, 16000, 3200), listOf(about.embedDim, about.sampleRate, about.minSamples))
        assertEquals(mapOf("eer" to 0.25), about.thresholds)
        assertEquals(sha256, about.inflatedSha256)
        assertEquals(0.25, about.threshold("eer"), 0.0)
    }

    @Test
    fun saysWhichThresholdsThereAre() {
        val some = About.parse(json(), "a.tflite")
        val missing = assertThrows(SpeakerException::class.java) { some.threshold("far_1e-3") }
        assertEquals("a.tflite has no threshold 'far_1e-3'; it has eer", missing.message)
        val none = About.parse(json("thresholds" to "null"), "a.tflite")
        val unmeasured = assertThrows(SpeakerException::class.java) { none.threshold("eer") }
        assertTrue("tfq-sv evaluate --store" in unmeasured.message!!)
    }

    @Test
    fun refusesWhatNobodyCanWorkBy() {
        assertTrue("--input=waveform" in refusal(json("input" to "\"features\"")))
        for ((field, value) in listOf(
            "input" to "\"audio\"",
            "embed_dim" to "0",
            "sample_rate" to "\"16000\"",
            "min_samples" to "null",
            "inflated_sha256" to "\"../../etc/passwd\"",
            "thresholds" to "[]",
        )) {
            val expected = "a.tflite has wrong metadata: $field is $value; export it again"
            assertEquals(expected, refusal(json(field to value)))
        }
        assertTrue("no JSON object" in refusal("[]"))
        assertTrue("no JSON object" in refusal("{"))
    }

    /** The cases of tests/data/metadata.json, which Python and the page are tested by, too. */
    @Test
    fun agreesWithPythonAndThePage() {
        val text = AboutTest::class.java.getResource("/metadata.json")!!.readText()
        val cases = Json.parseToJsonElement(text).jsonObject
        fun case(one: JsonObject): String {
            val without = one["without"]?.jsonArray?.map { it.jsonPrimitive.content } ?: emptyList()
            val fields = cases.getValue("base").jsonObject + (one["change"]?.jsonObject ?: emptyMap())
            return JsonObject(fields - without.toSet()).toString()
        }
        for (one in cases.getValue("good").jsonArray.map { it.jsonObject }) {
            val about = About.parse(case(one), "a.tflite")
            assertEquals(one.getValue("eer").jsonPrimitive.doubleOrNull, about.thresholds["eer"])
        }
        for (one in cases.getValue("bad").jsonArray.map { it.jsonObject }) {
            val field = one.getValue("field").jsonPrimitive.content
            val said = refusal(case(one))
            assertTrue("$one: $said", said.startsWith("a.tflite has wrong metadata: $field is "))
        }
        for (one in cases.getValue("no_object").jsonArray) {
            assertTrue(one.toString(), "no JSON object" in refusal(one.jsonPrimitive.content))
        }
    }
}
