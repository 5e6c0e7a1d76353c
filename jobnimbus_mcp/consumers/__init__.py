"""What is done about an event: each consumer with a hand of its own in the stream, each safe to repeat."""
