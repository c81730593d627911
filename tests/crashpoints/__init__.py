"""Processes that die at a chosen durable write or send, and what must hold after each death."""
