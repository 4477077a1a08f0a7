package tfq.sv

/**
 * Long speech is embedded in windows, whose mean stands for all of it; FORMAT.md has the rule.
 *
 * While more than 60 s are left, the first 40 s of these are a window; what is left then is the last one.
 */
object Windows {
    private const val WHOLE_SECONDS = 60
    private const val WINDOW_SECONDS = 40
    private const val CONSTANT = 1f / 32768

    /**
     * Returns where the windows of [count] samples are, at [rate] samples per second. One window says that
     * speech is embedded whole.
     */
    @JvmStatic
    fun borders(count: Int, rate: Int): List<IntRange> = buildList {
        var start = 0
        while (count - start > WHOLE_SECONDS * rate.toLong()) { // so a window's samples are an Int
            add(start until start + WINDOW_SECONDS * rate)
            start += WINDOW_SECONDS * rate
        }
        add(start until count)
    }

    /** Embeds speech of any length by [network], which embeds one window. */
    internal fun embed(speech: FloatArray, rate: Int, network: (FloatArray) -> FloatArray): FloatArray {
        val places = borders(speech.size, rate)
        if (places.size == 1) return network(speech)
        val sounding = places.filterNot { isConstant(speech, it) }.ifEmpty { places.take(1) }
        val sums = DoubleArray(0).toMutableList()
        for (place in sounding) {
            network(speech.sliceArray(place)).forEachIndexed { i, value ->
                if (i < sums.size) sums[i] += value.toDouble() else sums.add(value.toDouble())
            }
        }
        return FloatArray(sums.size) { (sums[it] / sounding.size).toFloat() }
    }

    /** Whether a window holds nothing but digital silence, or a constant. */
    private fun isConstant(speech: FloatArray, place: IntRange): Boolean {
        var (low, high) = speech[place.first] to speech[place.first]
        for (i in place) {
            low = minOf(low, speech[i])
            high = maxOf(high, speech[i])
        }
        return high - low <= CONSTANT
    }
}
