"""The adapters, each inside the package that it is for, against what the Reranker itself says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import InvalidInputError, Item
from rank_cases import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt import RankedResults, Reranker

QUERY = "Likes slow films about work."
TEXTS = ["A ship at sea.", " ", "A war.", "A baker at work."]  # the second cannot be rated
TITLES = ["The Ship", "Nothing", None, "The Baker"]
METADATA: list[dict[str, Any]] = [{"title": title, "year": 1998} for title in TITLES]
METADATA[1] = {"year": 1998}


@pytest.fixture(scope="module")
def expected(reranker: Reranker) -> RankedResults:
    items = [Item(n, m.get("title"), text) for n, (m, text) in enumerate(zip(METADATA, TEXTS, strict=True))]
    return reranker.rank(QUERY, items)


def test_the_cases_say_something(expected: RankedResults) -> None:
    ids = [r.item_id for r in expected]
    assert ids[-1] == 1
    assert ids[:3] != [0, 2, 3]
    assert [r.status for r in expected] == ["ok", "ok", "ok", "invalid"]


def told(expected: RankedResults) -> list[tuple[str, float | None, bool]]:
    return [(TEXTS[int(r.item_id or 0)], r.expected_rating, r.error is not None) for r in expected]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_langchain(reranker: Reranker, expected: RankedResults, asynchronous: bool) -> None:
    documents = pytest.importorskip("langchain_core.documents")
    from exp3rt_trt.integrations.langchain import RerankerCompressor

    given = [documents.Document(text, metadata=m) for text, m in zip(TEXTS, METADATA, strict=True)]
    before = [each.model_dump() for each in given]
    compressor = RerankerCompressor(reranker=reranker)
    if asynchronous:
        got = asyncio.run(compressor.acompress_documents(given, QUERY))
    else:
        got = compressor.compress_documents(given, QUERY)
    assert isinstance(compressor, documents.BaseDocumentCompressor)
    seen = [(d.page_content, d.metadata.get("expected_rating"), "error" in d.metadata) for d in got]
    assert seen == told(expected)
    assert all(d.metadata["year"] == 1998 for d in got)
    assert [each.model_dump() for each in given] == before
    assert RerankerCompressor(reranker=reranker, top_k=2).compress_documents(given, QUERY) == list(got[:2])


def test_langchain_reasons(reranker: Reranker) -> None:
    documents = pytest.importorskip("langchain_core.documents")
    from exp3rt_trt.integrations.langchain import RerankerCompressor

    compressor = RerankerCompressor(reranker=reranker, mode="reason")
    (got,) = compressor.compress_documents([documents.Document("A war.")], QUERY)
    (want,) = reranker.rank(QUERY, ["A war."], mode="reason")
    assert got.metadata == {"expected_rating": want.expected_rating, "reasoning": want.reasoning}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_llama_index(reranker: Reranker, expected: RankedResults, asynchronous: bool) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    from exp3rt_trt.integrations.llama_index import RerankerPostprocessor

    nodes = [schema.TextNode(text=text, metadata=m) for text, m in zip(TEXTS, METADATA, strict=True)]
    given = [schema.NodeWithScore(node=node, score=0.5) for node in nodes]
    before = [each.model_dump() for each in given]
    postprocessor = RerankerPostprocessor(reranker=reranker)
    if asynchronous:
        got = asyncio.run(postprocessor.apostprocess_nodes(given, query_str=QUERY))
    else:
        got = postprocessor.postprocess_nodes(given, query_str=QUERY)
    assert [(n.text, n.score, "error" in n.metadata) for n in got] == told(expected)
    assert [each.model_dump() for each in given] == before
    cut = RerankerPostprocessor(reranker=reranker, top_n=2)
    assert [n.text for n in cut.postprocess_nodes(given, query_str=QUERY)] == [n.text for n in got[:2]]
    with pytest.raises(InvalidInputError, match="query_str"):
        postprocessor.postprocess_nodes(given)


def test_haystack(engine: Path, expected: RankedResults) -> None:
    haystack = pytest.importorskip("haystack", exc_type=ImportError)
    from exp3rt_trt.integrations.haystack import RerankerRanker

    given = [haystack.Document(content=text, meta=m) for text, m in zip(TEXTS, METADATA, strict=True)]
    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", RerankerRanker(str(engine), options=OPTIONS))
    again = haystack.Pipeline.loads(pipeline.dumps(), allowed_modules=[RerankerRanker.__module__])
    got = again.run({"ranker": {"query": QUERY, "documents": given}})["ranker"]["documents"]
    assert [(d.content, d.score, "error" in d.meta) for d in got] == told(expected)
    assert {d.id for d in got} == {d.id for d in given}
    assert all("error" not in d.meta and d.score is None for d in given)
    cut = again.run({"ranker": {"query": QUERY, "documents": given, "top_k": 2}})["ranker"]["documents"]
    assert cut == got[:2]


def test_rerankers(reranker: Reranker) -> None:
    package = pytest.importorskip("rerankers")
    from exp3rt_trt.integrations.rerankers import RerankerRanker

    texts = [TEXTS[0], *TEXTS[2:]]
    ranker = RerankerRanker(reranker)
    want = reranker.rank(QUERY, texts)
    got = ranker.rank(QUERY, texts, doc_ids=["a", "b", "c"])
    names = {"0": "a", "1": "b", "2": "c"}
    assert [(r.doc_id, r.score, r.rank) for r in got] == [
        (names[str(r.item_id)], r.expected_rating, r.rank) for r in want
    ]
    assert got.top_k(1)[0].text == texts[int(want[0].item_id or 0)]
    assert ranker.score(QUERY, texts[0]) == got.get_score_by_docid("a")
    documents = [package.Document(text, doc_id=text, metadata={"title": "x"}) for text in texts]
    titled = reranker.rank(QUERY, [Item(n, "x", text) for n, text in enumerate(texts)])
    ranked = asyncio.run(ranker.rank_async(QUERY, documents))
    assert [r.score for r in ranked] == [r.expected_rating for r in titled]


def test_rerankers_refuses_what_it_cannot_tell(reranker: Reranker) -> None:
    pytest.importorskip("rerankers")
    from exp3rt_trt.integrations.rerankers import RerankerRanker

    with pytest.raises(InvalidInputError, match=r"docs\[1\]: .*empty"):
        RerankerRanker(reranker).rank(QUERY, TEXTS)
    with pytest.raises(InvalidInputError, match="doc_ids: 1 ids for 2 docs"):
        RerankerRanker(reranker).rank(QUERY, ["a", "b"], doc_ids=["x"])
