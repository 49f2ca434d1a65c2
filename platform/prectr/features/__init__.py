"""Features: raw point-in-time state in, the arrays that rankers read out. The same code offline and online."""
