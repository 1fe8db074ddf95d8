"""Samples and time, pure: G.711, resampling, playout. Audio is s16le mono ``bytes``, durations are
seconds.
"""
