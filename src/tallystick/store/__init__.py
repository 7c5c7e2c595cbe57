"""Where records rest: the port, and one adapter a module."""
