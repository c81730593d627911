"""Pure state machines: what each role decides, without a clock, a socket or a file."""
