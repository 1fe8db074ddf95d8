"""`python -m mediad` is `mediad`."""

from mediad.cli import main

main()
