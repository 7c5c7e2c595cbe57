"""The routes, by what they are about; who may call each stands in its signature (`tallystick.serve.calls`)."""
