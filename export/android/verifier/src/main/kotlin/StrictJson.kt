package tfq.sv

import java.nio.ByteBuffer
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/**
 * JSON objects from elsewhere, by one rule in Python (strict_json.py), in the page (strict_json.js)
 * and here: RFC 8259's, in UTF-8 without a byte order mark, at most 64 levels deep. The library's
 * parser takes more: bare words, 080, 1f, and control characters in strings.
 */
internal object StrictJson {
    private const val LEVELS = 64
    private val LITERAL = Regex("true|false|null|-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?")

    /** Bytes as text; null if they are not UTF-8. */
    fun text(data: ByteBuffer): String? = try {
        Charsets.UTF_8.newDecoder().decode(data).toString()
    } catch (_: CharacterCodingException) {
        null
    }

    /** The object that [text] holds; null if it is no JSON object. */
    fun parse(text: String): JsonObject? {
        if (!isPlain(text)) return null
        val found = try {
            Json.parseToJsonElement(text)
        } catch (_: SerializationException) {
            return null
        }
        return (found as? JsonObject)?.takeIf(::hasNumbersAndWordsOnly)
    }

    /** A number without fraction that an Int holds, however it is written: 80.0 is 80. */
    fun whole(value: JsonElement?): Int? =
        number(value)?.takeIf { it % 1.0 == 0.0 && it >= Int.MIN_VALUE && it <= Int.MAX_VALUE }?.toInt()

    /** A finite number. */
    fun number(value: JsonElement?): Double? = (value as? JsonPrimitive)
        ?.takeIf { !it.isString }?.content?.toDoubleOrNull()?.takeIf(Double::isFinite)

    /** Whether [text] is not too deep, and its strings hold no control characters. */
    private fun isPlain(text: String): Boolean {
        var levels = 0
        var inString = false
        var escaped = false
        for (character in text) {
            when {
                inString && character < ' ' -> return false
                escaped -> escaped = false
                inString && character == '\\' -> escaped = true
                character == '"' -> inString = !inString
                inString -> Unit
                character == '{' || character == '[' -> if (++levels > LEVELS) return false
                character == '}' || character == ']' -> --levels
            }
        }
        return true
    }

    private fun hasNumbersAndWordsOnly(value: JsonElement): Boolean = when (value) {
        is JsonObject -> value.values.all(::hasNumbersAndWordsOnly)
        is JsonArray -> value.all(::hasNumbersAndWordsOnly)
        is JsonPrimitive -> value.isString || LITERAL.matches(value.content)
    }
}
