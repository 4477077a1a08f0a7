package tfq.sv

import java.io.File
import kotlin.concurrent.thread
import kotlin.math.sqrt
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class SpeakersTest {
    private val right = floatArrayOf(2f, 0f)
    private val up = floatArrayOf(0f, 3f)
    private val speakers = Speakers("network").apply {
        enroll("ann", listOf(right))
        enroll("bob", listOf(up, up))
    }

    private fun refusal(call: () -> Any?): String = assertThrows(SpeakerException::class.java, call).message!!

    @Test
    fun cosines() {
        assertEquals(0.0, cosine(right, up), 0.0)
        assertEquals(-1.0, cosine(right, floatArrayOf(-5f, 0f)), 1e-12)
        assertEquals(1 / sqrt(2.0), cosine(right, floatArrayOf(1f, 1f)), 1e-12)
        assertTrue("no direction" in refusal { cosine(right, floatArrayOf(0f, 0f)) })
        assertTrue("do not compare" in refusal { cosine(right, floatArrayOf(1f)) })
    }

    @Test
    fun enrollsTheMean() {
        speakers.enroll("cleo", listOf(floatArrayOf(1f, 0f), floatArrayOf(3f, 4f)))
        assertEquals(1.0, speakers.score("cleo", floatArrayOf(2f, 2f)), 1e-12)
        assertEquals(setOf("ann", "bob", "cleo"), speakers.names)
    }

    @Test
    fun findsTheBest() {
        assertEquals("ann", speakers.best(floatArrayOf(2f, 1f)).first)
        assertEquals("bob", speakers.best(floatArrayOf(1f, 2f)).first)
    }

    @Test
    fun saysWhoIsMissing() {
        assertEquals("eve is not enrolled; there are ann, bob", refusal { speakers.score("eve", up) })
        assertEquals("nobody is enrolled; call enroll", refusal { Speakers("network").best(up) })
        assertTrue("no speech" in refusal { speakers.enroll("eve", emptyList()) })
        assertTrue("no direction" in refusal { speakers.enroll("eve", listOf(right, floatArrayOf(-2f, 0f))) })
    }

    @Test
    fun forgets() {
        assertTrue(speakers.remove("ann"))
        assertFalse(speakers.remove("ann"))
        assertEquals(setOf("bob"), speakers.names)
    }

    @Test
    fun comesBackFromAFile() {
        val file = File.createTempFile("speakers", ".json")
        val names = listOf("\"quoted\"", "Zoë\n")
        val values = floatArrayOf(1e-9f, -1.2345678f)
        names.forEach { speakers.enroll(it, listOf(values)) }
        speakers.write(file)
        val found = Speakers("network").apply { enroll("gone", listOf(up)) }
        found.read(file)
        assertEquals(speakers.names, found.names)
        for (name in names) assertEquals(1.0, found.score(name, values), 1e-12)
    }

    @Test
    fun refusesOtherFiles() {
        val file = File.createTempFile("speakers", ".json")
        speakers.write(file)
        assertTrue("another network" in refusal { Speakers("other").read(file) })
        fun of(speakers: String) = "{\"network\":\"network\",\"speakers\":{$speakers}}"
        for (text in listOf("", "[]", "{}", of("\"ann\":[\"a\"]"),
            of("\"ann\":[1,2],\"eve\":[1]"), of("\"eve\":[]"), of("\"eve\":[0,0]"), of("\"eve\":[1e99,0]"), of("\"eve\":1"))
        ) {
            file.writeText(text)
            assertTrue("enroll again" in refusal { speakers.read(file) })
        }
        assertTrue("cannot be read" in refusal { speakers.read(File("/no/such/file")) })
        assertEquals(setOf("ann", "bob"), speakers.names)
    }

    @Test
    fun nobodyIsMissingWhileAFileIsRead() {
        val file = File.createTempFile("speakers", ".json")
        speakers.write(file)
        var reading = true
        var gone = 0
        val other = thread { while (reading) if (speakers.names != setOf("ann", "bob")) gone += 1 }
        repeat(2000) { speakers.read(file) }
        reading = false
        other.join()
        assertEquals(0, gone)
    }
}
