"""The README's table of events has what is told."""

import re
from pathlib import Path

from mediad.bus.events import FACTS

ROOT = Path(__file__).parents[3]
_PUBLISHED = re.compile(r'publish\(\s*"([a-z_]+)"')


def test_the_table_of_events_has_them_all() -> None:
    sources = (ROOT / "src/mediad/call").rglob("*.py")
    told = {type_ for path in sources for type_ in _PUBLISHED.findall(path.read_text())}
    assert {"turn_ended", "speaking"} <= told
    section = (ROOT / "README.md").read_text().partition("\n## Events\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    kinds = {name: kind.strip() for names, _, kind in rows for name in re.findall(r"\w+", names)}
    assert kinds == {name: "fact" if name in FACTS else "live" for name in told | FACTS}
