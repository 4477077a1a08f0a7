package tfq.sv

import android.content.Context
import java.io.File
import java.io.IOException

/**
 * Opens a model from the app's assets; what it inflates to is kept in the app's storage, where no
 * backup takes it.
 *
 * @param asset its name, such as `speaker.tflite`.
 * @throws SpeakerException there is no such asset, or see [SpeakerModel.open].
 */
fun Context.openSpeakerModel(asset: String): SpeakerModel {
    val data = try {
        assets.open(asset).use { it.readBytes() }
    } catch (error: IOException) {
        throw SpeakerException("there is no asset $asset; put the file into src/main/assets", error)
    }
    return SpeakerModel.open(data, asset, File(noBackupFilesDir, "tfq_sv"))
}
