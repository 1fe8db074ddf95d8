"""Offline speech (espeak-ng, pocketsphinx) and the Pipecat agent behind ``mediad agent``."""
