"""STT, LLM and TTS services behind ``mediad agent --role``: offline, Pipecat's, OpenAI's API."""
