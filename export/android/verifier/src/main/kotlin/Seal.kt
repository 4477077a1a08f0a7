package tfq.sv

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/**
 * The seal: by it a file is known to be one of tfq-sv's, whole and unharmed. The interpreter may crash
 * on a damaged file, so it never gets to see one. FORMAT.md has the layout.
 */
internal object Seal {
    private const val VERSION = 1
    private const val DIGEST = 32
    private const val BYTES = 64
    private val MAGIC = byteArrayOf(0x89.toByte()) + "tfq-sv-file\r\n\u001a\n".toByteArray()

    /** Throws SpeakerException, with [name] in its message, unless the seal is there and holds. */
    fun check(data: ByteArray, name: String) {
        if (data.isEmpty()) throw SpeakerException("$name is empty")
        if (data.size < 8 || String(data, 4, 4, Charsets.ISO_8859_1) != "TFL3") {
            throw SpeakerException("$name is not a .tflite file")
        }
        val start = find(data)
        if (start < 0 || start + BYTES > data.size) {
            throw SpeakerException("$name is not a tfq-sv file, or is cut short: it has no tfq-sv seal")
        }
        val record = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
        val version = record.getInt(start + 16).toUInt()
        if (version > VERSION.toUInt()) {
            throw SpeakerException(
                "$name has format $version, and this library reads up to $VERSION; upgrade the library"
            )
        }
        val length = record.getLong(start + 24).toULong()
        if (length != data.size.toULong()) {
            throw SpeakerException("$name is damaged: it has ${data.size} bytes and should have $length")
        }
        val digest = MessageDigest.getInstance("SHA-256")
        digest.update(data, 0, start + DIGEST)
        digest.update(ByteArray(DIGEST))
        digest.update(data, start + BYTES, data.size - start - BYTES)
        if (!digest.digest().contentEquals(data.copyOfRange(start + DIGEST, start + BYTES))) {
            throw SpeakerException("$name is damaged: its checksum does not match; get it again")
        }
    }

    private fun find(data: ByteArray): Int =
        (0..data.size - MAGIC.size).firstOrNull { at -> MAGIC.indices.all { data[at + it] == MAGIC[it] } }
            ?: -1
}
