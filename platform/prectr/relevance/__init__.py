"""Text relevance without the language model: lexical baseline and features, the student encoder, batch scoring."""
