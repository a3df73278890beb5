"""What a space is used for: classes by name, and by a few labels."""
