"""How audio reaches us."""
