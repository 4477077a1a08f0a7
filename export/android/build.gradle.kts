// Version 9 of the Android plugin brings Kotlin along. It needs Gradle 9.6 and JDK 17.
plugins {
    id("com.android.application") version "9.4.0" apply false
    id("com.android.library") version "9.4.0" apply false
}
