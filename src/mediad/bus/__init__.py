"""Facts that happened, told to whoever listens. Commands do not travel here."""
