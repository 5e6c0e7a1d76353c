"""What is true of JobNimbus, whoever asks."""
