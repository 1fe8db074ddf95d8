"""Links to the services of a pipeline: one WebSocket per call and role, to STT, LLM and TTS.

    services = make_services(settings, metrics, tls)               once in a process
    speech = TtsCache(store, metrics)

    stt = SttLink(services.stt, call, language, events)            for each call; `events` has the
    llm = LlmLink(services.llm, call, language, events)            methods of `events.SttEvents`,
    tts = Speaker(speech, services.tts, call, voice, 8000, events) `LlmEvents` and `TtsEvents`

Each has ``run`` for a task of the call, ``close`` and then ``closed``, after which the call forgets
it: they know each other, and what knows itself is not freed at once.
"""
