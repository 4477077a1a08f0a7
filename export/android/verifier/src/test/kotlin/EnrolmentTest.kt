package tfq.sv

import java.io.File
import kotlin.math.PI
import kotlin.math.sin
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.double
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.float
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** The cases of tests/data/enrolment.json, calibration.json and speech_check.json, which Python and the page are tested by, too. */
class EnrolmentTest {
    private val cases = resource("enrolment.json")
    private val base = cases.getValue("base").jsonObject
    private val file = Enrolment(text(base["network"]), base.getValue("embed_dim").jsonPrimitive.int)

    private fun resource(name: String): JsonObject {
        val text = EnrolmentTest::class.java.getResource("/$name")!!.readText()
        return Json.parseToJsonElement(text).jsonObject
    }

    private fun objects(name: String) = cases.getValue(name).jsonArray.map { it.jsonObject }

    private fun text(json: JsonElement?): String = json!!.jsonPrimitive.content

    private fun number(json: JsonElement?): Double = json!!.jsonPrimitive.double

    private fun floats(json: JsonElement?) = json!!.jsonArray.map { it.jsonPrimitive.float }.toFloatArray()

    private fun case(one: JsonObject): String {
        val without = one["without"]?.jsonArray?.map { text(it) } ?: emptyList()
        return JsonObject(base + (one["change"]?.jsonObject ?: emptyMap()) - without.toSet()).toString()
    }

    private fun refusal(content: String): String =
        assertThrows(SpeakerException::class.java) { file.parse(content, "a.json") }.message!!

    @Test
    fun readsAndWritesGoodFiles() {
        for (one in objects("good")) {
            val found = file.parse(case(one), "a.json")
            assertEquals(one.getValue("names").jsonArray.map { text(it) }, found.keys.toList())
            val again = file.parse(file.text(found), "b.json")
            assertEquals(found.keys.toList(), again.keys.toList())
            for ((name, references) in found) references.zip(again.getValue(name)).forEach { (old, new) ->
                assertArrayEquals(old.embedding, new.embedding, 0f)
                assertEquals(old.seconds, new.seconds, 0.0)
            }
        }
    }

    /** Python's tests read what this leaves in the folder for temporary files. */
    @Test
    fun writesForOthers() {
        file.write(File(System.getProperty("java.io.tmpdir"), "from-kotlin.json"), file.parse(base.toString(), "a.json"))
    }

    @Test
    fun refusesOtherFiles() {
        for (one in objects("bad")) {
            val said = refusal(case(one))
            assertTrue("$one: $said", said.startsWith("a.json is damaged: ${text(one["field"])} is "))
        }
        for (one in objects("other_network")) assertTrue("another network" in refusal(case(one)))
        for (one in objects("newer")) assertTrue(refusal(case(one)).startsWith("a.json has version 2"))
        for (one in cases.getValue("no_file").jsonArray) {
            assertTrue("$one", refusal(text(one)).startsWith("a.json is not a file of enrolled speakers"))
        }
        for (one in cases.getValue("damaged").jsonArray) assertTrue("$one", "enroll again" in refusal(text(one)))
    }

    @Test
    fun decidesAlike() {
        val speakers = file.parse(base.toString(), "a.json")
            .mapValues { (_, references) -> references.map { it.embedding } }
        for (one in objects("decisions")) {
            val test = floats(one["embedding"])
            val found = Decision.best(speakers, test, number(one["threshold"]))
            assertEquals(text(one["best"]), found.name)
            assertEquals(text(one["runner_up"]), found.runnerUp)
            assertEquals(one.getValue("speaker").jsonPrimitive.contentOrNull, found.speaker)
            assertEquals(number(one["margin"]), found.margin!!, 1e-6)
            for ((name, references) in speakers) {
                val expected = number(one.getValue("scores").jsonObject[name])
                assertEquals(expected, Decision.score(references, test), 1e-6)
            }
        }
    }

    @Test
    fun agreesAlike() {
        for (one in objects("agreement")) {
            val units = one.getValue("embeddings").jsonArray.map { floats(it) }
            val found = Agreement.outsiders(units, number(one["threshold"]))
            val expected = one.getValue("outsiders").jsonObject
            assertEquals(expected.keys, found.keys.map { it.toString() }.toSet())
            for ((i, best) in found) assertEquals(number(expected["$i"]), best, 1e-5)
            val said = Agreement.problem(units, number(one["threshold"]))
            assertEquals(found.isEmpty(), said.isEmpty())
            for (i in found.keys) assertTrue(said, "recording ${i + 1}" in said)
            assertEquals("", Agreement.problem(units, null))
        }
        for (one in objects("repeated")) {
            val units = one.getValue("embeddings").jsonArray.map { floats(it) }
            val said = Agreement.problem(units, null)
            val again = one.getValue("again").jsonArray.map { number(it).toInt() }
            assertEquals(again, units.indices.filter { "recording ${it + 1}" in said })
        }
        for (pair in cases.getValue("agreement_thresholds").jsonArray.map { it.jsonArray }) {
            assertEquals(number(pair[1]), Agreement.leastScore(number(pair[0]))!!, 1e-9)
        }
        assertEquals(null, Agreement.leastScore(null))
    }

    @Test
    fun judgesRecordingsAlike() {
        for (one in resource("speech_check.json").getValue("cases").jsonArray.map { it.jsonObject }) {
            val samples = signal(one.getValue("signal").jsonArray)
            val found = Quality.of(samples)
            assertEquals(number(one["seconds"]), found.seconds, 1e-6)
            assertEquals(number(one["clipped"]), found.clipped, 1e-4)
            one.getValue("level").jsonPrimitive.doubleOrNull?.let { assertEquals(it, found.level, 0.01) }
            assertEquals(text(one["no_speech"]), SpeechCheck.noSpeech(samples))
            assertEquals(text(one["problem"]), Quality.problem(samples))
        }
    }

    @Test
    fun calibratesAlike() {
        val cases = resource("calibration.json")
        fun case(one: JsonObject): JsonObject {
            val without = one["without"]?.jsonArray?.map { text(it) } ?: emptyList()
            val fields = cases.getValue("base").jsonObject + (one["change"]?.jsonObject ?: emptyMap())
            return JsonObject(fields - without.toSet())
        }
        for (one in cases.getValue("good").jsonArray.map { it.jsonObject }) {
            val found = Calibration.of(case(one))!!
            for (row in one.getValue("llrs").jsonArray.map { it.jsonArray }) {
                val llr = found.llr(number(row[0]), number(row[1]), row[2].jsonPrimitive.int)
                assertEquals(number(row[3]), llr, 1e-6)
            }
        }
        for (one in cases.getValue("bad").jsonArray.map { it.jsonObject }) {
            assertTrue("$one", Calibration.of(case(one)) == null)
        }
        for (one in cases.getValue("none").jsonArray) assertEquals(null, Calibration.of(Json.parseToJsonElement(text(one))))
        assertEquals(null, Calibration.of(null))
    }

    /** The signal that speech_check.json describes. */
    private fun signal(parts: JsonArray): FloatArray {
        val values = mutableListOf<Float>()
        var state = 1L
        for (part in parts.map { it.jsonObject }) {
            val sines = part["sines"]?.jsonArray?.map { it.jsonArray.map { value -> number(value) } } ?: emptyList()
            val noise = part["noise"]?.let { number(it) } ?: 0.0
            val offset = part["offset"]?.let { number(it) } ?: 0.0
            repeat(Math.round(16000 * number(part["seconds"])).toInt()) {
                state = (1664525 * state + 1013904223) % (1L shl 32)
                val random = 2.0 * state / (1L shl 32) - 1
                val sum = sines.sumOf { (hertz, amplitude) -> amplitude * sin(2 * PI * hertz * values.size / 16000) }
                values += (sum + noise * random + offset).coerceIn(-1.0, 1.0).toFloat()
            }
        }
        return values.toFloatArray()
    }
}
