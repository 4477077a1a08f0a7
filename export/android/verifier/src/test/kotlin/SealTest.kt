package tfq.sv

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class SealTest {
    private val magic = byteArrayOf(0x89.toByte()) + "tfq-sv-file\r\n\u001a\n".toByteArray()

    /** A file of our form: 8 bytes, some weights, the seal, more weights. */
    private fun sealed(version: Int = 1): ByteArray {
        val data = "0000TFL3".toByteArray() + ByteArray(100) { it.toByte() } + magic + ByteArray(48) +
            ByteArray(50)
        val record = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
        record.putInt(108 + 16, version)
        record.putLong(108 + 24, data.size.toLong())
        val digest = MessageDigest.getInstance("SHA-256").digest(data)
        digest.copyInto(data, 108 + 32)
        return data
    }

    private fun refusal(data: ByteArray): String =
        assertThrows(SpeakerException::class.java) { Seal.check(data, "a.tflite") }.message!!

    @Test
    fun acceptsAWholeFile() = Seal.check(sealed(), "a.tflite")

    @Test
    fun refusesEveryFlippedByte() {
        val data = sealed()
        for (at in data.indices) {
            val flipped = data.copyOf().also { it[at] = (it[at].toInt() xor 1).toByte() }
            assertTrue(refusal(flipped).startsWith("a.tflite "))
        }
    }

    @Test
    fun refusesEveryShorterFile() {
        val data = sealed()
        for (size in data.indices) refusal(data.copyOf(size))
    }

    @Test
    fun saysWhatIsWrong() {
        assertTrue("empty" in refusal(ByteArray(0)))
        assertTrue("not a .tflite" in refusal("RIFFxxxxWAVE".toByteArray()))
        assertTrue("no tfq-sv seal" in refusal("0000TFL3".toByteArray() + ByteArray(500)))
        assertTrue("upgrade" in refusal(sealed(version = 2)))
    }
}
