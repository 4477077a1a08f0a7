package tfq.sv

import java.io.File

/**
 * Who is enrolled: references by name. Embeddings of different networks do not compare, so they are
 * kept with the hash of theirs. ENROLMENT.md has the rules.
 *
 * @param network `inflatedSha256` of the network that made the embeddings.
 * @param size of an embedding.
 */
internal class Speakers(network: String, size: Int) {
    private val file = Enrolment(network, size)

    // Replaced as a whole: whoever reads meanwhile sees everyone of before, or everyone of after.
    @Volatile
    private var enrolled: Map<String, List<Reference>> = emptyMap()

    val names: Set<String> get() = enrolled.keys.toSortedSet()

    fun enroll(name: String, references: List<Reference>) {
        checkName(name)
        if (references.isEmpty()) throw SpeakerException("$name: no speech to enroll; give one recording, best three")
        synchronized(this) { enrolled = enrolled + (name to references) }
    }

    @Synchronized
    fun remove(name: String): Boolean {
        val known = name in enrolled
        enrolled = enrolled - name
        return known
    }

    /** The score of an embedding of length 1 against one speaker, and the number of their references. */
    fun score(name: String, test: FloatArray): Pair<Double, Int> {
        val references = enrolled[name] ?: throw SpeakerException(
            "$name is not enrolled; " +
                if (enrolled.isEmpty()) "nobody is: call enroll" else "there are ${names.joinToString()}"
        )
        return Decision.score(references.map { it.embedding }, test) to references.size
    }

    /** Whom an embedding of length 1 is most like. */
    fun best(test: FloatArray, threshold: Double): Identification =
        Decision.best(enrolled.mapValues { (_, references) -> references.map { it.embedding } }, test, threshold)

    fun write(target: File) = file.write(target, enrolled)

    /** Replaces everyone by those in a file. */
    fun read(source: File) {
        val found = file.read(source)
        synchronized(this) { enrolled = found }
    }

    companion object {
        fun checkName(name: String) {
            if (!Enrolment.isName(name)) throw SpeakerException("a speaker's name is text of one character or more")
        }
    }
}
