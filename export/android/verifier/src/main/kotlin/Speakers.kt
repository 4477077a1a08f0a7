package tfq.sv

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import kotlin.math.sqrt
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.float
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** Cosine of the angle between two embeddings, in [-1, 1]. */
fun cosine(a: FloatArray, b: FloatArray): Double {
    if (a.size != b.size) throw SpeakerException("embeddings of ${a.size} and ${b.size} values do not compare")
    return dot(a, b) / (length(a) * length(b))
}

private fun dot(a: FloatArray, b: FloatArray): Double = a.indices.sumOf { a[it].toDouble() * b[it] }

private fun length(a: FloatArray): Double {
    val length = sqrt(dot(a, a))
    if (!length.isFinite() || length == 0.0) {
        throw SpeakerException("an embedding of length $length has no direction; record again")
    }
    return length
}

/**
 * Who is enrolled: mean embeddings by name. Embeddings of different networks do not compare, so
 * they are kept with the hash of theirs.
 *
 * @param network `inflatedSha256` of the network that made the embeddings.
 */
internal class Speakers(private val network: String) {
    // Replaced as a whole: whoever reads meanwhile sees everyone of before, or everyone of after.
    @Volatile
    private var means: Map<String, FloatArray> = emptyMap()

    val names: Set<String> get() = means.keys.toSortedSet()

    fun enroll(name: String, embeddings: List<FloatArray>) {
        if (embeddings.isEmpty()) throw SpeakerException("$name: no speech to enroll; give one utterance or more")
        val mean = FloatArray(embeddings[0].size) { d ->
            (embeddings.sumOf { it[d].toDouble() } / embeddings.size).toFloat()
        }
        length(mean)
        synchronized(this) { means = means + (name to mean) }
    }

    @Synchronized
    fun remove(name: String): Boolean {
        val known = name in means
        means = means - name
        return known
    }

    fun score(name: String, embedding: FloatArray): Double = cosine(
        means[name] ?: throw SpeakerException(
            "$name is not enrolled; " +
                if (means.isEmpty()) "nobody is: call enroll" else "there are ${names.joinToString()}"
        ),
        embedding,
    )

    /** The name that scores best, and its score. */
    fun best(embedding: FloatArray): Pair<String, Double> =
        means.map { (name, mean) -> name to cosine(mean, embedding) }.maxByOrNull { it.second }
            ?: throw SpeakerException("nobody is enrolled; call enroll")

    fun write(file: File) {
        val json = buildJsonObject {
            put("network", JsonPrimitive(network))
            put("speakers", JsonObject(means.mapValues { (_, mean) -> JsonArray(mean.map { JsonPrimitive(it) }) }))
        }
        Storage.write(file, ByteBuffer.wrap(json.toString().toByteArray()))
    }

    /** Replaces everyone by those in a file that [write] wrote. */
    fun read(file: File) {
        val (made, found) = try {
            val json = Json.parseToJsonElement(file.readText()).jsonObject
            json.getValue("network").jsonPrimitive.content to
                json.getValue("speakers").jsonObject.mapValues { (_, mean) ->
                    mean.jsonArray.map { it.jsonPrimitive.float }.toFloatArray()
                }
        } catch (error: IOException) {
            throw SpeakerException("$file cannot be read: ${error.message}", error)
        } catch (error: SerializationException) {
            throw SpeakerException("$file does not hold enrolled speakers; enroll again", error)
        } catch (error: IllegalArgumentException) {
            throw SpeakerException("$file does not hold enrolled speakers; enroll again", error)
        } catch (error: NoSuchElementException) {
            throw SpeakerException("$file does not hold enrolled speakers; enroll again", error)
        }
        if (made != network) {
            throw SpeakerException("$file was enrolled with another network, and does not compare; enroll again")
        }
        if (found.values.map { it.size }.distinct().size > 1 || !found.values.all(::hasDirection)) {
            throw SpeakerException("$file does not hold enrolled speakers; enroll again")
        }
        synchronized(this) { means = found }
    }

    private fun hasDirection(mean: FloatArray) = mean.all(Float::isFinite) && mean.any { it != 0f }
}
