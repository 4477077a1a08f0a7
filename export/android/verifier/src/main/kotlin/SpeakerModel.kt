package tfq.sv

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

/**
 * A tfq-sv `.tflite`, ready to turn speech into embeddings.
 *
 * May be called from any thread; calls wait for each other. Takes a moment: not on the main thread.
 *
 * @property about the file's metadata.
 */
class SpeakerModel private constructor(
    val about: About,
    private val name: String,
    private val network: Interpreter,
) : AutoCloseable {
    /**
     * Computes an embedding. Of more than a minute it is the mean of those of [Windows], in the memory of one.
     *
     * @param speech samples in [-1, 1] at `about.sampleRate` (16 kHz), `about.minSamples` (0.2 s) or more.
     * @return `about.embedDim` values.
     * @throws SpeakerException too little speech, or values that are not finite.
     */
    @Synchronized
    fun embed(speech: FloatArray): FloatArray {
        if (speech.size < about.minSamples) {
            val seconds = about.minSamples.toDouble() / about.sampleRate
            throw SpeakerException(
                "${speech.size} samples are too few; give at least ${about.minSamples} ($seconds s)"
            )
        }
        if (!speech.all(Float::isFinite)) throw SpeakerException("speech has values that are NaN or infinite")
        return Windows.embed(speech, about.sampleRate, ::embedWindow)
    }

    private fun embedWindow(speech: FloatArray): FloatArray {
        val embedding = FloatArray(about.embedDim)
        run(network, "embed", "waveform", arrayOf(speech), "embedding", arrayOf(embedding), name)
        if (!embedding.all(Float::isFinite)) {
            throw SpeakerException("${speech.size} samples are too few for this network; give more speech")
        }
        return embedding
    }

    /** Gives the memory back; afterwards nothing else may be called. */
    @Synchronized
    override fun close() = network.close()

    companion object {
        /**
         * Opens a file. The first time its weights are inflated to int8, which are kept in [folder];
         * from then on they are only checked by their hash. What `tfq-sv inflate` wrote runs as it is.
         *
         * @param data the whole file.
         * @param name what messages call it.
         * @param folder where inflated networks are kept; the app's own storage.
         * @throws SpeakerException it is damaged, or is not one of ours; the folder cannot be written.
         */
        @JvmStatic
        fun open(data: ByteArray, name: String, folder: File): SpeakerModel {
            Seal.check(data, name)
            val direct = ByteBuffer.allocateDirect(data.size).order(ByteOrder.nativeOrder()).put(data)
            interpreter(direct, name).use { packed ->
                val about = About.parse(StrictJson.text(answer(packed, "about", "json", name)) ?: "", name)
                if (about.form != null) return SpeakerModel(about, name, interpreter(direct, name))
                val sha256 = about.inflatedSha256
                val inflated = Storage.fetch(folder, sha256) { inflate(packed, sha256, name) }
                return SpeakerModel(about, name, interpreter(inflated, name))
            }
        }

        private fun inflate(packed: Interpreter, sha256: String, name: String): ByteBuffer {
            val content = answer(packed, "inflate", "tflite", name)
            if (Storage.sha256(content) != sha256) {
                throw SpeakerException("$name inflates to other bytes than it says; export it again")
            }
            return content
        }

        private fun interpreter(model: ByteBuffer, name: String): Interpreter {
            model.rewind()
            return refused(name) { Interpreter(model, Interpreter.Options().setNumThreads(1)) }
        }

        /** Returns the bytes of a signature that needs no input; LiteRT's Java API asks for one all the same. */
        private fun answer(packed: Interpreter, signature: String, output: String, name: String): ByteBuffer {
            val size = refused(name) { packed.getOutputTensorFromSignature(output, signature).numBytes() }
            val bytes = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())
            run(packed, signature, "request", IntArray(1), output, bytes, name)
            bytes.rewind()
            return bytes
        }

        private fun run(
            network: Interpreter,
            signature: String,
            input: String,
            value: Any,
            output: String,
            result: Any,
            name: String,
        ) = refused(name) {
            network.runSignature(mapOf(input to value), mapOf(output to result), signature)
        }

        /** Runs [call] and makes what LiteRT throws one clear line. */
        private fun <T> refused(name: String, call: () -> T): T = try {
            call()
        } catch (error: IllegalArgumentException) {
            throw SpeakerException("LiteRT cannot run $name: ${error.message}", error)
        } catch (error: IllegalStateException) {
            throw SpeakerException("LiteRT cannot run $name: ${error.message}", error)
        }
    }
}
