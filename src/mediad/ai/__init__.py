"""Links to AI services: each a WebSocket that speaks Pipecat's frames."""
