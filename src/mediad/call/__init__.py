"""Live calls: what one call does, which calls there are, and the clock that drives them."""
