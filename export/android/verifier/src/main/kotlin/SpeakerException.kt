package tfq.sv

/** Something that a caller can put right: one line that says what is wrong and what to do. */
class SpeakerException(message: String, cause: Throwable? = null) : RuntimeException(message, cause)
