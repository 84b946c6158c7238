"""The commands, one typed dataclass each; heavy imports happen when a command runs, so that help is instant."""
