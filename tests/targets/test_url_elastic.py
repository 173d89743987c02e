"""format=elasticsearch: what each item of a bulk answer means."""

import gzip
import json

import pytest

from lastwords import Rejected, TryAgain
from lastwords.targets import resolve
from targets.servers import WebServer

pytest.importorskip("urllib3")


class Index(WebServer):
    """Answers a bulk request as Elasticsearch does. ``statuses``: by message, used up; then it is created once."""

    def __init__(self):
        self.documents, self.statuses, self.bodies = {}, {}, []
        super().__init__()

    def finish_request(self, request, client_address):
        outer = self

        class Answers(self.RequestHandlerClass):
            def do_POST(self):
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, dict(self.headers), body))
                lines = [json.loads(line) for line in body.splitlines()]
                items = [outer.create(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
                said = {"errors": any("error" in item["create"] for item in items), "items": items}
                text = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        Answers(request, client_address, self)

    def create(self, action, document):
        id_ = action["create"]["_id"]
        status = 409 if id_ in self.documents else (self.statuses.get(document["message"]) or [201]).pop(0)
        if status < 300:
            self.documents[id_] = document
            return {"create": {"_id": id_, "status": status}}
        return {"create": {"_id": id_, "status": status, "error": {"type": "some_exception", "reason": "because"}}}


@pytest.fixture
def index():
    server = Index()
    yield server
    server.shutdown()
    server.server_close()


def target(index, path="/logs", query=""):
    return resolve(f"http://localhost:{index.server_port}{path}?format=elasticsearch{query}")


def test_a_batch_is_created_under_its_ids(index, entry):
    """A second time it is there already, which is an acceptance."""
    batch = [entry("one", user=7), entry("two")]
    for _ in range(2):
        target(index).deliver(batch)
    assert [(i, d["message"]) for i, d in index.documents.items()] == [("abc-1", "one"), ("abc-2", "two")]
    document = index.documents["abc-1"]
    assert document["@timestamp"].endswith("Z") and document["extra"] == {"user": 7} and "time" not in document
    path, headers, _ = index.requests[0]
    assert path.startswith("/logs/_bulk?filter_path=errors,items.create._id")
    assert headers["Content-Type"] == "application/x-ndjson"


def test_a_document_that_is_refused_is_named_and_the_others_are_accepted(index, entry):
    """Also when it is in the first of several requests."""
    batch = [entry(word) for word in ("a", "bad", "c", "worse", "e")]
    index.statuses = {"bad": [400] * 2, "worse": [400] * 2}
    for most in ("", "&max_bytes=1024"):
        with pytest.raises(Rejected, match="400 for abc-2.*some_exception: because") as failure:
            target(index, query=most).deliver(batch)
        assert failure.value.entries == ("abc-2", "abc-4")
    assert len(index.documents) == 3
    assert len(index.requests) > 2


def test_what_is_not_now_is_offered_again_and_nothing_else_is_indexed_twice(index, entry):
    """One item that the index has no room for at the moment, beside one that it will never take."""
    batch = [entry(word) for word in ("a", "bad", "busy", "d")]
    index.statuses = {"bad": [400, 400], "busy": [429]}
    with pytest.raises(TryAgain, match="429 for abc-3"):
        target(index).deliver(batch)
    with pytest.raises(Rejected) as failure:
        target(index).deliver(batch)
    assert failure.value.entries == ("abc-2",)
    assert sorted(index.documents) == ["abc-1", "abc-3", "abc-4"]


def test_a_failure_after_a_refusal_in_an_earlier_request_loses_neither(index, entry):
    """Accepted is what came before the first that was refused; the rest is offered again."""
    batch = [entry(word * 600) for word in ("a", "b", "c", "d")]
    index.statuses = {"b" * 600: [400, 400], "d" * 600: [503]}
    with pytest.raises(TryAgain) as failure:
        target(index, query="&max_bytes=1024").deliver(batch)
    assert failure.value.accepted == 1
    with pytest.raises(Rejected) as failure:
        target(index, query="&max_bytes=1024").deliver(batch[1:])
    assert failure.value.entries == ("abc-2",)
    assert sorted(index.documents) == ["abc-1", "abc-3", "abc-4"]


@pytest.mark.parametrize("status", [403, 404])
def test_an_index_that_is_read_only_buries_nothing(index, entry, status):
    """It is about the index: every entry would get the same answer."""
    index.statuses = {"a": [status], "b": [400]}
    with pytest.raises(RuntimeError, match=f"{status} for abc-1"):
        target(index).deliver([entry("a"), entry("b")])


@pytest.mark.parametrize(
    "text", [b"", b"ok", b"{}", b'{"errors": true, "items": [{"index": {}}]}', b'{"errors":true,"items":[]}']
)
def test_an_answer_of_somebody_else_is_no_acceptance(entry, text):
    """200 alone says nothing."""
    server = WebServer()
    server.script = [(200, {}, text)]
    try:
        with pytest.raises(RuntimeError, match="bulk|name all"):
            target(server).deliver([entry()])
    finally:
        server.shutdown()
        server.server_close()


def test_an_index_is_needed():
    """And a path that names the API already is fine."""
    with pytest.raises(ValueError, match="HOST:9200/INDEX"):
        resolve("http://localhost:9200/?format=elasticsearch")
    made = resolve("http://localhost:9200/logs/_bulk?format=elasticsearch&query=pipeline%3Dp")
    assert made.label == "http://localhost:9200/logs/_bulk"
    assert made._url.startswith("http://localhost:9200/logs/_bulk?pipeline=p&filter_path=")
