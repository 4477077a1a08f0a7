plugins {
    id("com.android.library")
}

android {
    namespace = "tfq.sv"
    compileSdk = 36
    defaultConfig {
        minSdk = 26 // LiteRT 2 asks for 23; below 26 crashes were reported (LiteRT issue 3274)
        consumerProguardFiles("consumer-rules.pro")
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    // The cases that Python and the page are tested by, too.
    sourceSets.getByName("test").resources.srcDir("../../../tests/data")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    implementation("org.jetbrains.kotlinx:kotlinx-serialization-json:1.9.0")
    testImplementation("junit:junit:4.13.2")
    androidTestImplementation("junit:junit:4.13.2")
    androidTestImplementation("androidx.test:runner:1.7.0")
}
