"""Changes in JobNimbus, however we learn of them."""
