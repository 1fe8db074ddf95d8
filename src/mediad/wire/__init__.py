"""Bytes to messages and back, sans-I/O: no socket, clock, log or setting is known here."""
