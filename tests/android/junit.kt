// What the tests use of JUnit 4, and a main() that runs them: classes are given by name.

package org.junit

annotation class Test

object Assert {
    @JvmStatic
    fun assertTrue(message: String, condition: Boolean) {
        if (!condition) throw AssertionError(message)
    }

    @JvmStatic
    fun assertTrue(condition: Boolean) = assertTrue("not true", condition)

    @JvmStatic
    fun assertFalse(condition: Boolean) = assertTrue("not false", !condition)

    @JvmStatic
    fun assertEquals(expected: Any?, found: Any?) = assertTrue("expected $expected, found $found", expected == found)

    @JvmStatic
    fun assertEquals(expected: Double, found: Double, delta: Double) =
        assertTrue("expected $expected, found $found", Math.abs(expected - found) <= delta)

    @JvmStatic
    fun assertArrayEquals(expected: FloatArray, found: FloatArray, delta: Float) {
        assertEquals(expected.size, found.size)
        for (i in expected.indices) {
            assertTrue("[$i]: expected ${expected[i]}, found ${found[i]}", Math.abs(expected[i] - found[i]) <= delta)
        }
    }

    @JvmStatic
    fun <T : Throwable> assertThrows(expected: Class<T>, call: () -> Any?): T {
        try {
            call()
        } catch (error: Throwable) {
            if (expected.isInstance(error)) return expected.cast(error)
            throw error
        }
        throw AssertionError("nothing was thrown")
    }
}

fun main(classes: Array<String>) {
    for (name in classes) {
        val kind = Class.forName(name)
        for (method in kind.declaredMethods.filter { it.isAnnotationPresent(Test::class.java) }) {
            try {
                method.invoke(kind.getDeclaredConstructor().newInstance())
            } catch (error: java.lang.reflect.InvocationTargetException) {
                error.targetException.printStackTrace()
                println("FAILED $name.${method.name}")
                continue
            }
            println("PASSED $name.${method.name}")
        }
    }
}
