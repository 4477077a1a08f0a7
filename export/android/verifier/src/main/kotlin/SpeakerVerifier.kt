package tfq.sv

import java.io.File

/**
 * Knows enrolled speakers again.
 *
 *     val verifier = SpeakerVerifier(model)
 *     verifier.enroll("ann", listOf(first, second, third))
 *     if (verifier.verify("ann", speech).accepted) open()
 *
 * Speech is as [SpeakerModel.embed] takes it. A `threshold` is one of the file's, by name: `eer`, or
 * `far_1e-2` and `far_1e-3`, where one in a hundred, and in a thousand, other voices is accepted.
 * ENROLMENT.md has the rules, which Python's SpeakerVerifier keeps as well.
 */
class SpeakerVerifier(private val model: SpeakerModel) {
    private val speakers = Speakers(model.about.inflatedSha256, model.about.embedDim)

    /** Who is enrolled, in alphabetical order. */
    val names: Set<String> get() = speakers.names

    /**
     * Enrolls a speaker by some recordings; replaces one of that name. Three or more, of some seconds
     * each, are best: only then one that is another person's can be told.
     *
     * @param check refuse recordings with little speech, too quiet or clipped ones, and one that does not
     *   fit the others: a SpeakerException that says which and why, and then nothing has changed.
     */
    @JvmOverloads
    fun enroll(name: String, recordings: List<FloatArray>, check: Boolean = true) {
        Speakers.checkName(name)
        if (check) {
            recordings.forEachIndexed { i, speech ->
                val reason = Quality.problem(speech)
                if (reason.isNotEmpty()) throw SpeakerException("recording ${i + 1}: $reason; record again")
            }
        }
        val embeddings = recordings.mapIndexed { i, speech ->
            try {
                Decision.unit(model.embed(speech))
            } catch (error: SpeakerException) {
                throw SpeakerException("recording ${i + 1}: ${error.message}", error)
            }
        }
        if (check) {
            val reason = Agreement.problem(embeddings, Agreement.leastScore(model.about.thresholds["eer"]))
            if (reason.isNotEmpty()) throw SpeakerException("$name: $reason")
        }
        speakers.enroll(name, embeddings.mapIndexed { i, it -> Reference(it, Quality.of(recordings[i]).seconds) })
    }

    /** Forgets a speaker; false if there was none of that name. */
    fun remove(name: String): Boolean = speakers.remove(name)

    /** Compares a voice with one enrolled speaker. */
    @JvmOverloads
    fun verify(name: String, speech: FloatArray, threshold: String = "eer"): Verification =
        verify(name, speech, model.about.threshold(threshold))

    /** Compares a voice with one enrolled speaker, by a threshold of your own. */
    fun verify(name: String, speech: FloatArray, threshold: Double): Verification {
        checkThreshold(threshold)
        val (score, references) = speakers.score(name, Decision.unit(model.embed(speech)))
        val llr = model.about.calibration?.llr(score, Quality.of(speech).seconds, references)
        return Verification(name, score, threshold, SpeechCheck.noSpeech(speech), llr)
    }

    /**
     * Finds the enrolled speaker that a voice is most like; it may be a stranger's, see
     * [Identification.speaker]. Of many speakers one is easily like a stranger: the more are enrolled,
     * the stricter the threshold should be.
     */
    @JvmOverloads
    fun identify(speech: FloatArray, threshold: String = "eer"): Identification =
        identify(speech, model.about.threshold(threshold))

    /** The same, by a threshold of your own. */
    fun identify(speech: FloatArray, threshold: Double): Identification {
        checkThreshold(threshold)
        val found = speakers.best(Decision.unit(model.embed(speech)), threshold)
        return found.copy(doubt = SpeechCheck.noSpeech(speech))
    }

    /** Writes the enrolled speakers to a file, at once or not at all. They are biometric data. */
    fun save(file: File) = speakers.write(file)

    /** Reads what [save] wrote, or Python or the page did, in place of whoever is enrolled. */
    fun load(file: File) = speakers.read(file)

    private fun checkThreshold(threshold: Double) {
        if (!threshold.isFinite()) throw SpeakerException("a threshold is a finite score, not $threshold")
    }
}
