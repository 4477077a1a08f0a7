// The calls of LiteRT's Java API that the library makes, answered by LiteRT itself: each interpreter is
// a process of interpreter.py. As strict as the original about what it takes.

package org.tensorflow.lite

import java.io.DataInputStream
import java.io.DataOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.MappedByteBuffer

class Tensor(private val bytes: Int) {
    fun numBytes(): Int = bytes
}

class Interpreter(model: ByteBuffer, options: Options) : AutoCloseable {
    class Options {
        internal var threads = -1

        fun setNumThreads(threads: Int): Options = apply { this.threads = threads }
    }

    private val process = ProcessBuilder(System.getProperty("litert").split('\n'))
        .redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val to = DataOutputStream(process.outputStream.buffered())
    private val from = DataInputStream(process.inputStream.buffered())
    private var closed = false

    init {
        require(
            model is MappedByteBuffer || (model.isDirect && model.order() == ByteOrder.nativeOrder())
        ) { "Model ByteBuffer should be either a MappedByteBuffer or a direct ByteBuffer in native order" }
        val content = ByteArray(model.capacity())
        model.duplicate().apply { rewind() }.get(content)
        to.writeInt(options.threads)
        write(content)
    }

    fun getOutputTensorFromSignature(output: String, signature: String): Tensor {
        ask("size", signature, output)
        return Tensor(from.readInt())
    }

    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, signature: String) {
        require(inputs.isNotEmpty()) { "Input error: Inputs should not be null or empty." }
        val (input, value) = inputs.entries.single()
        val (output, result) = outputs.entries.single()
        ask("run", signature, output)
        to.writeUTF(input)
        when (value) {
            is IntArray -> write(bytes(4 * value.size) { value.forEach(::putInt) })
            is Array<*> -> write((value.single() as FloatArray).let { row -> bytes(4 * row.size) { row.forEach(::putFloat) } })
            else -> throw IllegalArgumentException("cannot give a ${value.javaClass}")
        }
        to.flush()
        val answer = ByteBuffer.wrap(read()).order(ByteOrder.LITTLE_ENDIAN)
        when (result) {
            is ByteBuffer -> {
                require(result.capacity() >= answer.capacity()) { "Cannot copy to a buffer of ${result.capacity()} bytes" }
                result.put(answer)
            }
            is Array<*> -> {
                val row = result.single() as FloatArray
                require(4 * row.size == answer.capacity()) { "Cannot copy to an array of ${row.size}" }
                answer.asFloatBuffer().get(row)
            }
            else -> throw IllegalArgumentException("cannot fill a ${result.javaClass}")
        }
    }

    override fun close() {
        closed = true
        to.close()
        process.waitFor()
    }

    private fun ask(vararg words: String) {
        check(!closed) { "Internal error: The Interpreter has already been closed." }
        words.forEach(to::writeUTF)
        to.flush()
    }

    private fun bytes(size: Int, fill: ByteBuffer.() -> Unit): ByteArray =
        ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).apply(fill).array()

    private fun write(content: ByteArray) {
        to.writeInt(content.size)
        to.write(content)
        to.flush()
    }

    /** What it answers, or an error's message: of negative length. */
    private fun read(): ByteArray {
        val size = from.readInt()
        val content = ByteArray(Math.abs(size)).also(from::readFully)
        require(size >= 0) { String(content) }
        return content
    }
}
