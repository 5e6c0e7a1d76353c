"""How to ask JobNimbus."""
