// The recorder, on the microphone of platform.stubs.

package tfq.sv

import android.media.AudioRecord
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

class RecorderTest {
    private val recorder = Recorder(1000, 1)

    private fun started(): AudioRecord {
        recorder.start()
        return AudioRecord.last!!
    }

    private fun assertEnds(microphone: AudioRecord) {
        for (attempt in 1..5000) {
            if (microphone.isReleased) break
            Thread.sleep(1)
        }
        assertTrue("released", microphone.isReleased)
        assertEquals(1, microphone.recordingState)
    }

    @Test
    fun givesTheMicrophoneBackAtItsLimit() {
        assertEnds(started())
        val samples = recorder.stop()
        assertEquals(1000, samples.size)
        assertEquals(999 / 32768.0, samples.last().toDouble(), 1e-9)
    }

    @Test
    fun givesTheMicrophoneBackWhenStopped() {
        val microphone = started()
        while (microphone.heard == 0) Thread.sleep(1)
        val samples = recorder.stop()
        assertEnds(microphone)
        assertTrue("what was heard", samples.isNotEmpty())
        assertEquals(0, recorder.stop().size)
    }

    @Test
    fun keepsWhatThereIsWhenTheMicrophoneIsTaken() {
        val microphone = started()
        while (microphone.heard == 0) Thread.sleep(1)
        microphone.isLost = true
        assertEnds(microphone)
        assertTrue("what was heard", recorder.stop().isNotEmpty())
        assertFalse(started() === microphone)
        recorder.stop()
    }
}
