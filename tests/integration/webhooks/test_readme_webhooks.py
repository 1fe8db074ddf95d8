"""What README says of webhooks runs as it stands."""

import json
import re
import time
from pathlib import Path
from typing import Any

from mediad.webhooks.signing import sign

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Webhooks\n")[2].partition("\n## ")[0]


def test_the_receiver_takes_what_is_signed_and_nothing_else() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (payload,) = re.findall(r"```json\n(.*?)```", SECTION, re.DOTALL)
    (secret,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", code)
    names: dict[str, Any] = {}
    exec(code, names)
    event = json.loads(payload)
    body = payload.encode()
    headers = sign([secret], event["id"], event["type"], body, int(time.time()))
    assert names["receive"](headers, body) == 200
    assert names["receive"](headers, body + b" ") == 401
