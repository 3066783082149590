"""A Reranker in other people's pipelines, one module for each; each needs the extra of its name."""
