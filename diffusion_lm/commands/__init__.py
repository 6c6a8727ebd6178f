"""One module a command, with `run(config)`; the config is a dataclass in a module that imports no torch."""
