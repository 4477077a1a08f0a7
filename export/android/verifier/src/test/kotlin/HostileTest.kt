package tfq.sv

import java.nio.ByteBuffer
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Test

/** The documents of tests/data/hostile.json, which Python and the page take or refuse, too. */
class HostileTest {
    private val text = HostileTest::class.java.getResource("/hostile.json")!!.readText()
    private val cases = Json.parseToJsonElement(text).jsonObject

    private fun wrong(kind: String, read: (String) -> Unit): List<JsonObject> =
        cases.getValue(kind).jsonArray.map { it.jsonObject }.filter { one ->
            val bytes = one.getValue("bytes").jsonPrimitive.content.toByteArray(Charsets.ISO_8859_1)
            val taken = try {
                read(StrictJson.text(ByteBuffer.wrap(bytes)) ?: "")
                true
            } catch (_: SpeakerException) {
                false
            }
            taken != one.getValue("taken").jsonPrimitive.boolean
        }

    @Test
    fun metadata() {
        assertEquals(emptyList<JsonObject>(), wrong("metadata") { About.parse(it, "a.tflite") })
    }

    @Test
    fun enrolledSpeakers() {
        val network = cases.getValue("network").jsonPrimitive.content
        val enrolment = Enrolment(network, cases.getValue("embed_dim").jsonPrimitive.int)
        assertEquals(emptyList<JsonObject>(), wrong("enrolled") { enrolment.parse(it, "a.json") })
    }
}
