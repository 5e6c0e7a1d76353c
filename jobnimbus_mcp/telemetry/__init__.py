"""Counters, latencies, the shared tally of /cache/stats, and structured logs."""
