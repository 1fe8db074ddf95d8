"""The HTTP port. It never holds a call: what it shows is handed to it as functions."""
