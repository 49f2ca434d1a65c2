"""Commands about a Ray cluster: submitting jobs, following them, checking what is installed."""
