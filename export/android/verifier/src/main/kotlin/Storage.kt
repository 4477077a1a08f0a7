package tfq.sv

import java.io.File
import java.io.FileInputStream
import java.io.FileOutputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest

/** Files that are whole or not there, whatever happens: a full disk, a killed process, two processes. */
internal object Storage {
    private const val TEMPORARY = ".part"
    private const val DAY_MILLISECONDS = 24 * 60 * 60 * 1000L
    private const val KEPT = 4 // An app has one network, or two while it changes.
    private val INFLATED = Regex("[0-9a-f]{64}\\.tflite")

    /**
     * Returns the content of this hash, mapped from its file in [folder], which is made now if it is
     * not there or damaged. The four that were used last stay; others are removed.
     *
     * @param make makes the content.
     */
    fun fetch(folder: File, sha256: String, make: () -> ByteBuffer): ByteBuffer {
        val kept = File(folder, "$sha256.tflite")
        intact(kept, sha256)?.let {
            val now = System.currentTimeMillis()
            if (now - kept.lastModified() > DAY_MILLISECONDS) kept.setLastModified(now) // It was used.
            return it
        }
        sweep(folder)
        write(kept, make())
        shrink(folder, kept)
        return intact(kept, sha256)
            ?: throw SpeakerException("$kept changed right after it was written; is something else writing there?")
    }

    /** Writes a file beside [target], reads it back, and renames it: atomic on one file system. */
    fun write(target: File, content: ByteBuffer) {
        val folder = target.absoluteFile.parentFile!!
        try {
            folder.mkdirs()
            sweep(folder, "${target.name}---")
            val temporary = File.createTempFile("${target.name}---", TEMPORARY, folder) // three characters at least
            try {
                FileOutputStream(temporary).use { stream ->
                    val rest = content.duplicate()
                    while (rest.hasRemaining()) stream.channel.write(rest)
                    stream.fd.sync()
                }
                if (sha256(map(temporary)) != sha256(content)) throw IOException("it reads back otherwise")
                if (!temporary.renameTo(target)) throw IOException("it cannot be renamed")
            } finally {
                temporary.delete()
            }
        } catch (error: IOException) {
            throw SpeakerException(
                "$target (${content.remaining()} bytes) cannot be written: ${error.message}; " +
                    "make room (${folder.usableSpace} bytes are free), or give a folder that the app may write",
                error,
            )
        }
    }

    /** Returns a file, mapped: its pages are read as they are used, and the system may drop them. */
    fun map(file: File): ByteBuffer = FileInputStream(file).use { stream ->
        stream.channel.map(FileChannel.MapMode.READ_ONLY, 0, stream.channel.size())
    }

    /** Returns the SHA-256, hexadecimal, of what remains in a buffer, and leaves it as it is. */
    fun sha256(content: ByteBuffer): String {
        val digest = MessageDigest.getInstance("SHA-256")
        digest.update(content.duplicate())
        return digest.digest().joinToString("") { "%02x".format(it) }
    }

    private fun intact(file: File, sha256: String): ByteBuffer? = try {
        map(file).takeIf { sha256(it) == sha256 }
    } catch (_: IOException) {
        null
    }

    /** Removes what killed processes left; what is younger may be another process's work. */
    private fun sweep(folder: File, start: String = "") {
        val oldest = System.currentTimeMillis() - DAY_MILLISECONDS
        folder.listFiles { file ->
            file.name.startsWith(start) && file.name.endsWith(TEMPORARY) && file.lastModified() < oldest
        }?.forEach(File::delete)
    }

    /** Removes what was used longest ago. Who has it mapped keeps it: only its name goes. */
    private fun shrink(folder: File, newest: File) {
        folder.listFiles { file -> INFLATED.matches(file.name) && file != newest }
            ?.sortedByDescending(File::lastModified)?.drop(KEPT - 1)?.forEach(File::delete)
    }
}
