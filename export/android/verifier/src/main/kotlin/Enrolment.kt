package tfq.sv

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.sqrt
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray

/**
 * What is kept of one enrolled recording.
 *
 * @property embedding of length 1.
 * @property seconds of net speech in the recording.
 */
internal class Reference(val embedding: FloatArray, val seconds: Double)

/**
 * The file of enrolled speakers: JSON, bound to its network. ENROLMENT.md has the layout;
 * enrolment_file.py and enrolment.js read and write the same.
 *
 * @param network `inflatedSha256` of the network that made the embeddings.
 * @param size of an embedding.
 */
internal class Enrolment(private val network: String, private val size: Int) {
    /** Writes a file, at once or not at all. */
    fun write(file: File, speakers: Map<String, List<Reference>>) {
        Storage.write(file, ByteBuffer.wrap(text(speakers).toByteArray()))
    }

    /** Reads what [write] wrote, or Python or the page did. */
    fun read(file: File): Map<String, List<Reference>> {
        val data = try {
            file.readBytes()
        } catch (error: IOException) {
            throw SpeakerException("$file cannot be read: ${error.message}", error)
        }
        return parse(StrictJson.text(ByteBuffer.wrap(data)) ?: "", file.toString())
    }

    /** The file's text. */
    fun text(speakers: Map<String, List<Reference>>): String = buildJsonObject {
        put("format", FORMAT)
        put("version", VERSION)
        put("network", network)
        put("embed_dim", size)
        putJsonArray("speakers") {
            for ((name, references) in speakers) add(
                buildJsonObject {
                    put("name", name)
                    putJsonArray("references") { references.forEach { add(json(it)) } }
                }
            )
        }
    }.toString() + "\n"

    private fun json(reference: Reference) = buildJsonObject {
        put("seconds", Math.round(1000 * reference.seconds) / 1000.0)
        put("embedding", buildJsonArray { reference.embedding.forEach { add(JsonPrimitive(it)) } })
    }

    /** Reads the text of the file [file]. */
    fun parse(text: String, file: String): Map<String, List<Reference>> {
        val content = StrictJson.parse(text)
        if (content == null || string(content["format"]) != FORMAT) {
            throw SpeakerException("$file is not a file of enrolled speakers; enroll again")
        }
        fun wrong(field: String, value: JsonElement?): Nothing = throw SpeakerException(
            "$file is damaged: $field is ${value.toString().take(60)}; enroll again"
        )

        val version = StrictJson.whole(content["version"])?.takeIf { it >= 1 } ?: wrong("version", content["version"])
        if (version > VERSION) {
            throw SpeakerException("$file has version $version, and this library reads up to $VERSION; upgrade tfq-sv")
        }
        val made = string(content["network"]) ?: wrong("network", content["network"])
        if (made != network) {
            throw SpeakerException(
                "$file was enrolled with another network, whose embeddings do not compare; enroll again"
            )
        }
        if (StrictJson.whole(content["embed_dim"]) != size) wrong("embed_dim", content["embed_dim"])
        val speakers = content["speakers"] as? JsonArray ?: wrong("speakers", content["speakers"])
        return buildMap {
            for (entry in speakers) {
                val fields = entry as? JsonObject ?: wrong("name", null)
                val name = string(fields["name"])?.takeIf { isName(it) && it !in this } ?: wrong("name", fields["name"])
                val references = (fields["references"] as? JsonArray)?.takeIf { it.isNotEmpty() }
                put(name, (references ?: wrong("references", fields["references"])).map { reference(it, ::wrong) })
            }
        }
    }

    private fun reference(entry: JsonElement, wrong: (String, JsonElement?) -> Nothing): Reference {
        val fields = entry as? JsonObject
        val seconds = StrictJson.number(fields?.get("seconds"))?.takeIf { it >= 0 } ?: wrong("seconds", fields?.get("seconds"))
        val json = fields?.get("embedding")
        val values = (json as? JsonArray)?.takeIf { it.size == size }?.map { StrictJson.number(it) ?: wrong("embedding", json) }
            ?: wrong("embedding", json)
        if (!(abs(sqrt(values.sumOf { it * it }) - 1) <= LENGTH_TOLERANCE)) wrong("embedding", json)
        return Reference(FloatArray(size) { values[it].toFloat() }, seconds)
    }

    companion object {
        private const val FORMAT = "tfq-sv enrolment"
        private const val VERSION = 1
        private const val LENGTH_TOLERANCE = 1e-3

        /** Whether a speaker may be called so: text that UTF-8 can hold. */
        fun isName(name: String): Boolean = name.isNotEmpty() && Charsets.UTF_8.newEncoder().canEncode(name)

        private fun string(value: JsonElement?): String? = (value as? JsonPrimitive)?.takeIf { it.isString }?.content
    }
}
