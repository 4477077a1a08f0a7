package tfq.sv

import android.annotation.SuppressLint
import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import kotlin.concurrent.thread

/**
 * Records the microphone between [start] and [stop]. The app must hold RECORD_AUDIO.
 *
 * @param sampleRate in Hz: `about.sampleRate` of the model.
 * @param mostSeconds where a recording ends by itself, and gives the microphone back.
 */
class Recorder(private val sampleRate: Int = 16000, private val mostSeconds: Int = 60) {
    private var recording: Recording? = null

    /** Starts to record. Throws SpeakerException if there is no microphone to be had. */
    fun start() {
        if (recording == null) recording = Recording()
    }

    /** Ends the recording; returns samples in [-1, 1), none if none was started. */
    fun stop(): FloatArray {
        val samples = recording?.finish() ?: FloatArray(0)
        recording = null
        return samples
    }

    private inner class Recording {
        private val record = open()
        private val pcm = ShortArray(sampleRate * mostSeconds)
        private var count = 0

        @Volatile
        private var wanted = true

        private val reader = thread(name = "tfq-sv recorder") {
            try {
                while (wanted && count < pcm.size) {
                    val read = record.read(pcm, count, minOf(sampleRate / 20, pcm.size - count))
                    if (read < 0) break // The system took the microphone away: keep what there is.
                    count += read
                }
            } finally {
                // Here, not in finish(): at its limit the recording ends, whether anyone asks or not.
                record.stop()
                record.release()
            }
        }

        fun finish(): FloatArray {
            wanted = false
            reader.join()
            return waveform(pcm, count)
        }
    }

    // Asking for the permission is the app's part; without it the microphone does not open.
    @SuppressLint("MissingPermission")
    private fun open(): AudioRecord {
        val coding = AudioFormat.ENCODING_PCM_16BIT
        val least = AudioRecord.getMinBufferSize(sampleRate, AudioFormat.CHANNEL_IN_MONO, coding)
        // The source for recognition: the least of gain control and noise suppression.
        val record = AudioRecord(
            MediaRecorder.AudioSource.VOICE_RECOGNITION,
            sampleRate,
            AudioFormat.CHANNEL_IN_MONO,
            coding,
            maxOf(least, 2 * sampleRate),
        )
        if (record.state != AudioRecord.STATE_INITIALIZED) {
            record.release()
            throw SpeakerException("the microphone does not open at $sampleRate Hz; is RECORD_AUDIO granted?")
        }
        record.startRecording()
        if (record.recordingState != AudioRecord.RECORDSTATE_RECORDING) {
            record.release()
            throw SpeakerException("the microphone does not start; another app may be using it")
        }
        return record
    }
}
