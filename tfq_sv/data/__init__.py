"""Corpora, audio files and trial lists. No TensorFlow is imported here."""
