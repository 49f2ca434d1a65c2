"""HTTP applications of the library, with Ray Serve and without. They hold no model code."""
