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
    private val right = floatArrayOf(1f, 0f)
    private val up = floatArrayOf(0f, 1f)
    private val speakers = Speakers("network", 2).apply {
        enroll("ann", listOf(Reference(right, 1.5)))
        enroll("bob", listOf(Reference(up, 1.0), Reference(up, 2.0)))
    }

    private fun refusal(call: () -> Any?): String = assertThrows(SpeakerException::class.java, call).message!!

    @Test
    fun cosines() {
        assertEquals(0.0, cosine(right, up), 0.0)
        assertEquals(-1.0, cosine(right, floatArrayOf(-5f, 0f)), 1e-12)
        assertEquals(1 / sqrt(2.0), cosine(right, floatArrayOf(1f, 1f)), 1e-12)
        assertTrue("no direction" in refusal { cosine(right, floatArrayOf(0f, 0f)) })
        assertTrue("do not compare" in refusal { cosine(right, floatArrayOf(1f)) })
        assertTrue("no direction" in refusal { Decision.unit(floatArrayOf(Float.NaN)) })
    }

    @Test
    fun findsTheBest() {
        val found = speakers.best(Decision.unit(floatArrayOf(2f, 1f)), 0.5)
        assertEquals("ann", found.speaker)
        assertEquals("bob", found.runnerUp)
        assertEquals("bob", speakers.best(up, 0.5).speaker)
        assertEquals(null, speakers.best(up, 1.1).speaker)
    }

    @Test
    fun saysWhoIsMissing() {
        assertEquals("eve is not enrolled; there are ann, bob", refusal { speakers.score("eve", up) })
        assertEquals("nobody is enrolled; call enroll", refusal { Speakers("network", 2).best(up, 0.5) })
        assertTrue("no speech" in refusal { speakers.enroll("eve", emptyList()) })
        for (name in listOf("", "\ud800")) {
            assertTrue("name" in refusal { speakers.enroll(name, listOf(Reference(up, 1.0))) })
        }
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
        val values = Decision.unit(floatArrayOf(1e-9f, -1.2345678f))
        names.forEach { speakers.enroll(it, listOf(Reference(values, 2.3456))) }
        speakers.write(file)
        val found = Speakers("network", 2).apply { enroll("gone", listOf(Reference(up, 1.0))) }
        found.read(file)
        assertEquals(speakers.names, found.names)
        for (name in names) assertEquals(1.0, found.score(name, values).first, 1e-7)
        assertTrue("\"seconds\":2.346," in file.readText())
    }

    @Test
    fun refusesOtherFiles() {
        val file = File.createTempFile("speakers", ".json")
        speakers.write(file)
        assertTrue("another network" in refusal { Speakers("other", 2).read(file) })
        assertTrue("embed_dim" in refusal { Speakers("network", 3).read(file) })
        file.writeBytes(byteArrayOf(-1))
        assertTrue("is not a file of enrolled speakers" in refusal { speakers.read(file) })
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
