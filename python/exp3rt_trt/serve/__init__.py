"""A Reranker behind HTTP; needs the extra `serve`."""
