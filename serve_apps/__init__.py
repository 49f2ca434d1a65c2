"""Ray Serve applications: thin HTTP fronts of what the library does. They hold no model code."""
