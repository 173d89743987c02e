"""Flask under gunicorn: one journal for all workers.

pip install flask gunicorn 'lastwords[http]'
gunicorn app:app --workers 2                       # also --threads 4, -k gevent, --preload
curl localhost:8000/hello

The handler may be made before or after the fork: with --preload it is made in the master, and each worker opens its own
connection and has its own courier; the lease lets one of them deliver at a time.
"""

import logging
import os

import lastwords
from flask import Flask, has_request_context, request

HERE = os.path.dirname(os.path.abspath(__file__))


def with_request(record):
    """What only exists in the logging call: a formatter runs later, in another thread, perhaps in another process."""
    if has_request_context():
        record.path, record.method = request.path, request.method
    return record


handler = lastwords.DurableHandler(
    os.environ.get("LOG_TARGET", f"file:{HERE}/app.jsonl?format=json"),
    os.environ.get("LOG_JOURNAL", f"{HERE}/app.db"),
    prepare=with_request,
)
logging.basicConfig(level=logging.INFO, handlers=[handler])

app = Flask(__name__)


@app.get("/<word>")
def say(word):
    app.logger.warning("said %s", word)
    return f"{word} is in the journal\n"
