"""Who speaks when: turns, barge-in, sentences, what was heard. Pure: time is an argument."""
