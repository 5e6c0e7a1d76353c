"""Lua that the server of the event log runs, each one atomic step on one account's slot."""
