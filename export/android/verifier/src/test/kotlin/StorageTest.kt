package tfq.sv

import java.io.File
import java.nio.ByteBuffer
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class StorageTest {
    private val content = ByteArray(100_000) { (it * 31 % 251).toByte() }
    private val sha256 = Storage.sha256(ByteBuffer.wrap(content))
    private val folder = File.createTempFile("storage", "").also(File::delete)
    private val kept = File(folder, "$sha256.tflite")
    private var made = 0

    private fun fetch(): ByteArray {
        val found = Storage.fetch(folder, sha256) { ByteBuffer.wrap(content).also { made += 1 } }
        return ByteArray(found.remaining()).also(found::get)
    }

    private fun files() = folder.list()!!.toList()

    @Test
    fun hashesAsEveryoneDoes() = assertEquals(
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        Storage.sha256(ByteBuffer.wrap("abc".toByteArray())),
    )

    @Test
    fun makesOnce() {
        repeat(3) { assertTrue(content.contentEquals(fetch())) }
        assertEquals(1, made)
        assertEquals(listOf(kept.name), files())
    }

    @Test
    fun writingRemovesWhatKilledProcessesLeftOfThatFile() {
        folder.mkdirs()
        val old = System.currentTimeMillis() - 2 * 24 * 60 * 60 * 1000L
        val (left, other) = listOf("speakers.json---1.part", "else.json---1.part").map { File(folder, it) }
        for (file in listOf(left, other)) {
            file.writeText("half")
            file.setLastModified(old)
        }
        val young = File(folder, "speakers.json---2.part").apply { writeText("at work") }
        Storage.write(File(folder, "speakers.json"), ByteBuffer.wrap(content))
        assertEquals(listOf(other.name, young.name, "speakers.json").sorted(), files().sorted())
    }

    @Test
    fun makesAnewWhatIsDamaged() {
        fetch()
        for (damaged in listOf(ByteArray(0), content.copyOf(50_000), content.copyOf().also { it[7] = 0 })) {
            kept.writeBytes(damaged)
            assertTrue(content.contentEquals(fetch()))
        }
        assertEquals(4, made)
        assertEquals(listOf(kept.name), files())
    }

    @Test
    fun manyAtOnceDoNotDisturbEachOther() {
        val pool = Executors.newFixedThreadPool(8)
        val found = pool.invokeAll(List(32) { Callable { fetch() } }).map { it.get() }
        pool.shutdown()
        assertTrue(found.all(content::contentEquals))
        assertEquals(listOf(kept.name), files())
    }

    @Test
    fun leavesNothingOfAFailedWrite() {
        folder.mkdirs()
        // A folder of that name that is not empty: nothing can be renamed to it.
        File(kept, "in the way").mkdirs()
        val error = assertThrows(SpeakerException::class.java) { fetch() }
        assertTrue(error.message!!, "cannot be written" in error.message!! && kept.path in error.message!!)
        assertEquals(listOf(kept.name), files())
    }

    @Test
    fun sweepsWhatAKilledProcessLeft() {
        folder.mkdirs()
        val old = File(folder, "old.part").apply { writeText("half") }
        val young = File(folder, "young.part").apply { writeText("half") }
        old.setLastModified(System.currentTimeMillis() - 2 * 24 * 60 * 60 * 1000L)
        fetch()
        assertEquals(listOf(kept.name, young.name).sorted(), files().sorted())
    }

    @Test
    fun keepsWhatWasUsedLast() {
        val old = List(6) { number -> File(folder, "%064x.tflite".format(number)) }
        val other = File(folder, "names.json")
        folder.mkdirs()
        for ((number, file) in (old + other).withIndex()) {
            file.writeText("x")
            file.setLastModified(1_000_000_000_000L + 1000 * number)
        }
        fetch()
        assertEquals((old.takeLast(3) + other + kept).map(File::getName).sorted(), files().sorted())
        kept.setLastModified(1_000_000_000_000L)
        fetch()
        assertTrue("was used now", kept.lastModified() > 1_000_000_100_000L)
    }

    @Test
    fun replacesAtOnce() {
        val target = File(folder, "new/names.json")
        for (text in listOf("first", "second")) {
            Storage.write(target, ByteBuffer.wrap(text.toByteArray()))
            assertEquals(text, target.readText())
        }
        assertEquals(listOf(target.name), target.parentFile!!.list()!!.toList())
    }
}
