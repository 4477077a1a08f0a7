package tfq.sv.sample

import android.Manifest
import android.app.Activity
import android.content.pm.PackageManager
import android.os.Bundle
import android.view.MotionEvent
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import java.io.File
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import tfq.sv.Recorder
import tfq.sv.SpeakerException
import tfq.sv.SpeakerModel
import tfq.sv.SpeakerVerifier
import tfq.sv.openSpeakerModel

/** One screen: hold a button and speak, to enroll a voice, to verify it, or to find whose it is. */
class MainActivity : Activity() {
    private val recorder = Recorder()
    private lateinit var name: EditText
    private lateinit var answer: TextView
    private val buttons = mutableListOf<Button>()
    private var recording = false

    // The worker's own.
    private var model: SpeakerModel? = null
    private lateinit var verifier: SpeakerVerifier
    private val file by lazy { File(noBackupFilesDir, "speakers.json") }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        name = EditText(this).apply { hint = "Name" }
        answer = TextView(this).apply { textSize = 20f }
        val screen = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(name)
            addView(holdButton("Hold and speak: enroll") { who, speech ->
                verifier.enroll(who, listOf(speech))
                verifier.save(file)
                "$who is enrolled; enrolled are ${verifier.names.joinToString()}"
            })
            addView(holdButton("Hold and speak: verify") { who, speech ->
                verifier.verify(who, speech).run { say(if (accepted) "This is $name" else "This is not $name", score, threshold) }
            })
            addView(holdButton("Hold and speak: who is it?") { _, speech ->
                verifier.identify(speech).run { say(speaker?.let { "This is $it" } ?: "Nobody who is enrolled", score, threshold) }
            })
            addView(answer)
        }
        setContentView(screen)
        work {
            val opened = openSpeakerModel("golden.tflite")
            model = opened
            verifier = SpeakerVerifier(opened)
            // Before the file: one that does not load, such as another network's, is replaced by enrolling.
            runOnUiThread { buttons.forEach { it.isEnabled = true } }
            if (file.exists()) verifier.load(file)
            "Enrolled are: ${verifier.names.joinToString().ifEmpty { "nobody yet" }}"
        }
    }

    override fun onDestroy() {
        recorder.stop()
        worker.execute { model?.close() }
        super.onDestroy()
    }

    private fun holdButton(label: String, job: (String, FloatArray) -> String) = Button(this).apply {
        text = label
        isEnabled = false // until the model is open
        buttons.add(this)
        setOnTouchListener { view, event ->
            when (event.actionMasked) {
                MotionEvent.ACTION_DOWN -> recording = record()
                MotionEvent.ACTION_UP -> {
                    view.performClick()
                    val who = name.text.toString().trim().ifEmpty { "me" }
                    val speech = recorder.stop()
                    if (recording) work { job(who, speech) } // else the reason stays on the screen
                    recording = false
                }
                MotionEvent.ACTION_CANCEL -> {
                    recorder.stop()
                    recording = false
                }
            }
            true
        }
    }

    /** Starts to record, or says why it cannot; returns whether it has started. */
    private fun record(): Boolean {
        if (checkSelfPermission(Manifest.permission.RECORD_AUDIO) != PackageManager.PERMISSION_GRANTED) {
            requestPermissions(arrayOf(Manifest.permission.RECORD_AUDIO), 0)
            answer.text = "Allow the microphone, then hold again"
            return false
        }
        return try {
            recorder.start()
            answer.text = "Speak, then let go"
            true
        } catch (error: SpeakerException) {
            answer.text = error.message
            false
        }
    }

    /** Does something off the main thread, and shows what it says. */
    private fun work(job: () -> String) = worker.execute {
        val said = try {
            job()
        } catch (error: SpeakerException) {
            error.message
        }
        runOnUiThread { answer.text = said }
    }

    private fun say(verdict: String, score: Double, threshold: Double) =
        "%s: score %.3f, threshold %.3f".format(verdict, score, threshold)

    private companion object {
        // Of the process: when the phone is turned, a new activity loads the file after the old one's save.
        val worker: ExecutorService = Executors.newSingleThreadExecutor()
    }
}
