"""The commands of the command line, a file for what belongs together; what they do is in the modules they call."""
