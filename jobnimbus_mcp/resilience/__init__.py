"""Small pure pieces that several drivers share."""
