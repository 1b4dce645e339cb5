"""nanotasks: a durable, distributed host for chat agents."""

__version__ = "0.1.0"
