"""The commands of the command line, by subject; nothing heavy is imported before one is chosen."""
