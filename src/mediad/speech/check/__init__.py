"""``mediad agent --check``: does a service keep the protocol of the README?"""
