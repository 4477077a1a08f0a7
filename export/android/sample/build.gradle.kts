plugins {
    id("com.android.application")
}

android {
    namespace = "tfq.sv.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "tfq.sv.sample"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    // Until you put a speaker.tflite of your own into src/main/assets, the test's small network serves.
    sourceSets["main"].assets.srcDir("../verifier/src/androidTest/resources")
}

dependencies {
    implementation(project(":verifier"))
}
