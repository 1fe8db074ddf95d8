"""A pipeline's services under other settings."""

import ssl

from mediad.ai.services.service import make_services, reload_services
from mediad.config import Settings
from mediad.metrics import Metrics


def test_services_have_the_new_settings_and_are_counted_on() -> None:
    before = make_services(Settings(), Metrics(), None)
    ai = {"ping_s": 0.5, "connect_timeout_s": 4.0, "reconnect_s": 5.0}
    wanted = Settings.model_validate({"ai": ai, "tts": {"url": ["ws://other:1"]}})
    tls = ssl.create_default_context()
    after = reload_services(before, wanted, tls)
    for old, new in zip(before, after, strict=True):
        assert (new.role, new.counts) == (old.role, old.counts)
        assert (new.ping_s, new.connect_timeout_s, new.reconnect_s) == (0.5, 4.0, 5.0)
        assert new.tls is tls
    assert (before.tts.addresses().url, after.tts.addresses().url) == (
        "ws://127.0.0.1:8773",
        "ws://other:1",
    )
