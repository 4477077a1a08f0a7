package tfq.sv

import java.io.File

/**
 * How like a voice is to an enrolled one.
 *
 * @property name who was enrolled.
 * @property score cosine, in [-1, 1].
 * @property threshold from which on the voices count as one.
 */
data class Verification(val name: String, val score: Double, val threshold: Double) {
    /** Whether the voices count as one. */
    val accepted: Boolean get() = score >= threshold
}

/**
 * Knows enrolled speakers again.
 *
 *     val verifier = SpeakerVerifier(model)
 *     verifier.enroll("ann", listOf(first, second, third))
 *     if (verifier.verify("ann", speech).accepted) open()
 *
 * Speech is as [SpeakerModel.embed] takes it. A `threshold` is one of the file's, by name: `eer`, or
 * `far_1e-2` and `far_1e-3`, where one in a hundred, and in a thousand, other voices is accepted.
 */
class SpeakerVerifier(private val model: SpeakerModel) {
    private val speakers = Speakers(model.about.inflatedSha256)

    /** Who is enrolled, in alphabetical order. */
    val names: Set<String> get() = speakers.names

    /** Enrolls a speaker by the mean of some utterances' embeddings; replaces one of that name. */
    fun enroll(name: String, utterances: List<FloatArray>) = speakers.enroll(name, utterances.map(model::embed))

    /** Forgets a speaker; false if there was none of that name. */
    fun remove(name: String): Boolean = speakers.remove(name)

    /** Compares a voice with one enrolled speaker. */
    @JvmOverloads
    fun verify(name: String, speech: FloatArray, threshold: String = "eer"): Verification {
        val least = model.about.threshold(threshold)
        return Verification(name, speakers.score(name, model.embed(speech)), least)
    }

    /**
     * Finds the enrolled speaker that a voice is most like. Of many speakers one is easily like a
     * stranger: the more are enrolled, the stricter the threshold should be.
     */
    @JvmOverloads
    fun identify(speech: FloatArray, threshold: String = "eer"): Verification {
        val least = model.about.threshold(threshold)
        val (name, score) = speakers.best(model.embed(speech))
        return Verification(name, score, least)
    }

    /** Writes the enrolled speakers to a file, at once or not at all. They are biometric data. */
    fun save(file: File) = speakers.write(file)

    /** Reads what [save] wrote, in place of whoever is enrolled. */
    fun load(file: File) = speakers.read(file)
}
