"""structlog through the standard library: the event dict and its context are in the journal, and arrive as JSON values.

pip install structlog 'lastwords[http]'
echo hello | python app.py

A target that is a handler of logging renders the dict with the ProcessorFormatter that you give it, at delivery.
"""

import logging
import os
import sys

import lastwords
import structlog

HERE = os.path.dirname(os.path.abspath(__file__))

handler = lastwords.DurableHandler(
    os.environ.get("LOG_TARGET", f"file:{HERE}/app.jsonl?format=json"), os.environ.get("LOG_JOURNAL", f"{HERE}/app.db")
)
logging.basicConfig(level=logging.INFO, handlers=[handler])
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,  # in the logging call: it is what only exists there
        structlog.processors.add_log_level,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)

log = structlog.get_logger("shop")
structlog.contextvars.bind_contextvars(order=7)
for line in sys.stdin:
    log.warning("said", word=line.strip())
    print("journaled", flush=True)
