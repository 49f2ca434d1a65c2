"""Text relevance without the language model: the lexical baseline and features, the student encoder, and batch scoring."""
