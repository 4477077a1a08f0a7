package tfq.sv

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Returns the first [count] samples of 16-bit PCM as a waveform in [-1, 1). */
fun waveform(pcm: ShortArray, count: Int = pcm.size): FloatArray = FloatArray(count) { pcm[it] / 32768f }

/** WAV files of 16-bit PCM, one channel. */
object Wav {
    private const val PCM = 1
    private const val EXTENSIBLE = 0xFFFE

    /**
     * Reads a file.
     *
     * @param data the whole file.
     * @param name what messages call it.
     * @param sampleRate what it must have, in Hz: `about.sampleRate` of the model.
     * @throws SpeakerException it is no WAV, or of another form.
     */
    @JvmStatic
    @JvmOverloads
    fun read(data: ByteArray, name: String, sampleRate: Int = 16000): FloatArray {
        val file = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
        if (data.size < 12 || tag(data, 0) != "RIFF" || tag(data, 8) != "WAVE") {
            throw SpeakerException("$name is not a WAV file")
        }
        var known = false
        var at = 12
        while (at + 8 <= data.size) {
            val start = at + 8
            // Of a stream the length is not known: 0xFFFFFFFF, or more than there is.
            val size = minOf(file.getInt(at + 4).toUInt().toLong(), (data.size - start).toLong()).toInt()
            when (tag(data, at)) {
                "fmt " -> {
                    check(file, start, size, name, sampleRate)
                    known = true
                }
                "data" -> {
                    if (!known) throw SpeakerException("$name has samples before their format; write it again")
                    return FloatArray(size / 2) { file.getShort(start + 2 * it) / 32768f }
                }
            }
            at = start + size + size % 2
        }
        throw SpeakerException("$name has no samples; it may be cut short")
    }

    private fun check(file: ByteBuffer, start: Int, size: Int, name: String, sampleRate: Int) {
        if (size < 16) throw SpeakerException("$name has a format of $size bytes; it may be cut short")
        val channels = file.getShort(start + 2).toUShort().toInt()
        val rate = file.getInt(start + 4)
        val bits = file.getShort(start + 14).toUShort().toInt()
        var coding = file.getShort(start).toUShort().toInt()
        if (coding == EXTENSIBLE && size >= 26) coding = file.getShort(start + 24).toUShort().toInt()
        val wrong = when {
            coding != PCM || bits != 16 -> "has coding $coding of $bits bits; it must be 16-bit PCM (coding 1)"
            channels != 1 -> "has $channels channels; it must have one"
            rate != sampleRate -> "has $rate samples per second; it must have $sampleRate"
            else -> return
        }
        throw SpeakerException("$name $wrong: ffmpeg -i $name -ar $sampleRate -ac 1 -c:a pcm_s16le new.wav")
    }

    private fun tag(data: ByteArray, at: Int) = String(data, at, 4, Charsets.ISO_8859_1)
}
