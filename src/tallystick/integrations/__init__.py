"""Events from elsewhere: one module per system, each turning its records into ours."""
