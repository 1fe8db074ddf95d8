"""``mediad demo``: a caller, mediad and the agent at once, talking; then what it was like."""

from mediad.demo.command import demo

__all__ = ["demo"]
