"""The command line: it parses, calls the public API and prints."""
