plugins {
    id("com.android.application")
}

android {
    namespace = "tfq.sv.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "tfq.sv.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "1"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    // The test's small network, golden.tflite. A real app has its own file in src/main/assets.
    sourceSets["main"].assets.directories.add("../verifier/src/androidTest/resources")
}

dependencies {
    implementation(project(":verifier"))
}
