"""What answers over HTTP. Nothing outside of here knows an event loop."""
