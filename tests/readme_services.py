"""The services of README's "Your own services", written to files as they stand there."""

import re
import shutil
from pathlib import Path

from mediad.wire import frames_pb2

__all__ = ["write_services"]

_README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```python\n# (\w+\.py): .*?^```", re.DOTALL | re.MULTILINE)


def write_services(directory: Path) -> list[str]:
    """Write all of them, and the ``frames_pb2.py`` that they need; return their names."""
    text = _README.read_text(encoding="utf-8")
    names = []
    for block in _BLOCK.finditer(text):
        lines = block[0].splitlines()[1:-1]
        (directory / block[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        names.append(block[1])
    shutil.copy(frames_pb2.__file__, directory)
    return names
