"""What happened, told to customers' own servers by signed POST requests."""
