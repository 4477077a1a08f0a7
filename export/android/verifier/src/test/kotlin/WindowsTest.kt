package tfq.sv

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Test

class WindowsTest {
    private fun pair(value: JsonElement?): List<Int> = value!!.jsonArray.map { it.jsonPrimitive.int }

    @Test
    fun bordersAreThoseOfAllReaders() {
        val text = javaClass.getResource("/windows.json")!!.readText()
        val cases = Json.parseToJsonElement(text).jsonArray.map { it.jsonObject }
        assertEquals(true, cases.size > 10)
        for (case in cases) {
            val (length, rate) = listOf("length", "rate").map { case[it]!!.jsonPrimitive.int }
            val found = Windows.borders(length, rate).map { listOf(it.first, it.last + 1) }
            assertEquals(case["count"]!!.jsonPrimitive.int, found.size)
            assertEquals(listOf(pair(case["first"]), pair(case["last"])), listOf(found.first(), found.last()))
            case["windows"]?.let { all -> assertEquals(all.jsonArray.map { pair(it) }, found) }
        }
    }

    @Test
    fun theMeanOfWindowsWithoutSilence() {
        val speech = FloatArray(130) { if (it in 40 until 80) 0.5f else it.toFloat() }
        val asked = mutableListOf<Int>()
        val found = Windows.embed(speech, 1) { window ->
            asked.add(window.size)
            floatArrayOf(window.first(), 1f)
        }
        assertEquals(listOf(40, 50), asked)
        assertEquals(listOf(40f, 1f), found.toList())
        assertEquals(listOf(3f), Windows.embed(FloatArray(60) { 3f }, 1) { floatArrayOf(it.last()) }.toList())
        assertEquals(listOf(3f), Windows.embed(FloatArray(70) { 3f }, 1) { floatArrayOf(it.last()) }.toList())
    }
}
