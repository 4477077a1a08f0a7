package tfq.sv

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class WavTest {
    private val pcm = shortArrayOf(0, 1, -1, Short.MAX_VALUE, Short.MIN_VALUE)
    private val expected = FloatArray(pcm.size) { pcm[it] / 32768f }

    private fun chunk(tag: String, content: ByteArray, size: Int = content.size): ByteArray =
        ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).put(tag.toByteArray()).putInt(size).array() +
            content + ByteArray(content.size % 2)

    private fun format(coding: Int = 1, channels: Int = 1, rate: Int = 16000, bits: Int = 16): ByteArray {
        val frame = channels * bits / 8
        val buffer = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN)
        buffer.putShort(coding.toShort()).putShort(channels.toShort()).putInt(rate).putInt(rate * frame)
        return buffer.putShort(frame.toShort()).putShort(bits.toShort()).array()
    }

    private fun samples(): ByteArray =
        ByteBuffer.allocate(2 * pcm.size).order(ByteOrder.LITTLE_ENDIAN).apply { pcm.forEach(::putShort) }.array()

    private fun wav(vararg chunks: ByteArray): ByteArray {
        val content = chunks.fold("WAVE".toByteArray(), ByteArray::plus)
        return chunk("RIFF", content)
    }

    private fun refusal(data: ByteArray): String =
        assertThrows(SpeakerException::class.java) { Wav.read(data, "a.wav") }.message!!

    @Test
    fun readsPcm() {
        assertArrayEquals(expected, Wav.read(wav(chunk("fmt ", format()), chunk("data", samples())), "a.wav"), 0f)
        assertArrayEquals(expected, waveform(pcm), 0f)
        assertArrayEquals(expected.copyOf(2), waveform(pcm, 2), 0f)
    }

    @Test
    fun passesOverOtherChunks() {
        val list = chunk("LIST", ByteArray(7))
        val data = wav(list, chunk("fmt ", format()), list, chunk("data", samples()), list)
        assertArrayEquals(expected, Wav.read(data, "a.wav"), 0f)
    }

    @Test
    fun readsTheExtensibleForm() {
        val subformat = ByteArray(24).also {
            it[0] = 22
            it[8] = 1
        }
        val data = wav(chunk("fmt ", format(coding = 0xFFFE) + subformat), chunk("data", samples()))
        assertArrayEquals(expected, Wav.read(data, "a.wav"), 0f)
    }

    @Test
    fun readsStreamsOfUnknownLength() {
        for (size in listOf(-1, Int.MAX_VALUE)) {
            val data = wav(chunk("fmt ", format()), chunk("data", samples(), size))
            assertArrayEquals(expected, Wav.read(data, "a.wav"), 0f)
        }
    }

    @Test
    fun saysWhatItCannotRead() {
        val data = chunk("data", samples())
        assertTrue("2 channels" in refusal(wav(chunk("fmt ", format(channels = 2)), data)))
        assertTrue("8000 samples per second" in refusal(wav(chunk("fmt ", format(rate = 8000)), data)))
        assertTrue("coding 3 of 32 bits" in refusal(wav(chunk("fmt ", format(coding = 3, bits = 32)), data)))
        assertTrue("before their format" in refusal(wav(data)))
        assertTrue("no samples" in refusal(wav(chunk("fmt ", format()))))
        assertEquals("a.wav is not a WAV file", refusal("ID3".toByteArray()))
    }

    @Test
    fun aFileThatIsCutShortNeverCrashes() {
        val data = wav(chunk("fmt ", format()), chunk("data", samples()))
        for (size in data.indices) {
            try {
                Wav.read(data.copyOf(size), "a.wav")
            } catch (_: SpeakerException) {
                continue
            }
        }
    }
}
