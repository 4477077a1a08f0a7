package tfq.sv

import java.io.File
import java.security.MessageDigest
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/**
 * The whole way, from a WAV to a decision, beside what tfq-sv's own SpeakerEncoder found. Needs LiteRT:
 * on a device, or on a JVM where something answers for it.
 */
class GoldenTest {
    private val golden = Json.parseToJsonElement(String(resource("golden.json"))).jsonObject
    private val folder = File.createTempFile("golden", "").also(File::delete)
    private val speech = golden.getValue("embeddings").jsonObject.keys.associateWith { Wav.read(resource(it), it) }

    private fun resource(name: String): ByteArray =
        javaClass.getResourceAsStream("/$name")!!.use { it.readBytes() }

    private fun open(data: ByteArray = resource("golden.tflite")) = SpeakerModel.open(data, "golden.tflite", folder)

    private fun values(name: String): JsonObject = golden.getValue(name).jsonObject

    private fun floats(array: JsonArray) = array.map { it.jsonPrimitive.float }.toFloatArray()

    private fun score(name: String): Double = values("scores").getValue(name).jsonPrimitive.double

    @Test
    fun embedsAsSpeakerEncoderDoes() = open().use { model ->
        for ((name, embedding) in values("embeddings")) {
            val expected = floats(embedding.jsonArray)
            val found = model.embed(speech.getValue(name))
            assertTrue("$name: cosine ${cosine(expected, found)}", cosine(expected, found) > 0.999)
        }
    }

    @Test
    fun decidesAsSpeakerEncoderDoes() = open().use { model ->
        val verifier = SpeakerVerifier(model)
        verifier.enroll("ann", listOf(speech.getValue("ann-1.wav")))
        verifier.enroll("bob", listOf(speech.getValue("bob.wav")))
        val same = verifier.verify("ann", speech.getValue("ann-2.wav"))
        val other = verifier.verify("ann", speech.getValue("bob.wav"))
        assertEquals(score("same"), same.score, 0.02)
        assertEquals(score("other"), other.score, 0.02)
        for ((name, threshold) in model.about.thresholds) {
            val expected = values("thresholds").getValue(name).jsonPrimitive.double
            assertEquals(expected, threshold, 1e-9)
            assertEquals(expected, verifier.verify("ann", speech.getValue("ann-2.wav"), name).threshold, 1e-9)
        }
        assertTrue(same.accepted)
        assertFalse(other.accepted)
        val expected = golden["llrs"]?.jsonObject // of a file with a calibration
        assertEquals(model.about.hasCalibration, expected != null)
        for ((name, result) in mapOf("same" to same, "other" to other)) {
            if (expected == null) assertEquals(null, result.llr)
            else assertEquals(expected.getValue(name).jsonPrimitive.double, result.llr!!, 0.5)
        }
        assertEquals("ann", verifier.identify(speech.getValue("ann-2.wav")).name)

        val file = File(folder, "speakers.json")
        verifier.save(file)
        val again = SpeakerVerifier(model).apply { load(file) }
        assertEquals(setOf("ann", "bob"), again.names)
        assertEquals(same.score, again.verify("ann", speech.getValue("ann-2.wav")).score, 1e-6)
    }

    @Test
    fun namesWhatCannotBeUsed() = open().use { model ->
        val verifier = SpeakerVerifier(model)
        val voice = speech.getValue("ann-1.wav")
        val short = assertThrows(SpeakerException::class.java) {
            verifier.enroll("ann", listOf(voice, FloatArray(100)), check = false)
        }
        assertTrue(short.message!!, short.message!!.startsWith("recording 2: "))
        verifier.enroll("ann", listOf(voice))
        for (threshold in listOf(Double.NaN, Double.NEGATIVE_INFINITY)) {
            assertThrows(SpeakerException::class.java) { verifier.verify("ann", voice, threshold) }
            assertThrows(SpeakerException::class.java) { verifier.identify(voice, threshold) }
        }
    }

    @Test
    fun takesAnyLength() = open().use { model ->
        val whole = speech.getValue("ann-1.wav")
        for (size in listOf(model.about.minSamples, 12345, whole.size, model.about.minSamples)) {
            assertEquals(model.about.embedDim, model.embed(whole.copyOf(size)).size)
        }
        val tooLittle = FloatArray(model.about.minSamples - 1)
        val error = assertThrows(SpeakerException::class.java) { model.embed(tooLittle) }
        assertEquals("3199 samples are too few; give at least 3200 (0.2 s)", error.message)
        assertThrows(SpeakerException::class.java) { model.embed(FloatArray(8000) { Float.NaN }) }
        Unit
    }

    @Test
    fun inflatesOnce() {
        val kept = File(folder, golden.getValue("inflated_sha256").jsonPrimitive.content + ".tflite")
        open().close()
        val made = kept.lastModified()
        assertTrue(kept.setLastModified(made - 60_000))
        open().close()
        assertTrue("inflated again", kept.lastModified() < made)
        kept.writeBytes(kept.readBytes().also { it[1000] = (it[1000].toInt() xor 1).toByte() })
        open().use { assertEquals(it.about.embedDim, it.embed(speech.getValue("bob.wav")).size) }
        assertEquals(listOf(kept.name), folder.list()!!.toList())
    }

    @Test
    fun neverGivesADamagedFileToTheInterpreter() {
        val data = resource("golden.tflite").also { it[5000] = (it[5000].toInt() xor 1).toByte() }
        val error = assertThrows(SpeakerException::class.java) { open(data) }
        assertEquals("golden.tflite is damaged: its checksum does not match; get it again", error.message)
    }

    @Test
    fun keepsNothingThatHasAnotherHashThanTheFileSays() {
        val latin = Charsets.ISO_8859_1 // a character for each byte
        val text = String(resource("golden.tflite"), latin)
        val other = text.replace(golden.getValue("inflated_sha256").jsonPrimitive.content, "0".repeat(64))
        val digest = other.indexOf("\u0089tfq-sv-file\r\n") + 32
        val data = other.toByteArray(latin).also { it.fill(0, digest, digest + 32) }
        MessageDigest.getInstance("SHA-256").digest(data).copyInto(data, digest)
        val error = assertThrows(SpeakerException::class.java) { open(data) }
        assertEquals("golden.tflite inflates to other bytes than it says; export it again", error.message)
        assertFalse(folder.exists())
    }

    @Test
    fun saysWhenItIsClosed() {
        val model = open().also(SpeakerModel::close)
        val error = assertThrows(SpeakerException::class.java) { model.embed(speech.getValue("bob.wav")) }
        assertTrue(error.message!!, "closed" in error.message!!)
    }
}
