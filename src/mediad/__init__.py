"""mediad: telephone calls on Asterisk to AI voice agents."""

__version__ = "0.1.0"
