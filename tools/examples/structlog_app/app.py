"""structlog through the standard library: the event dict and its context are in the journal, rendering comes at delivery.

pip install structlog 'lastwords[http]'
echo hello | python app.py
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
handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))
logging.basicConfig(level=logging.INFO, handlers=[handler])
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,  # in the logging call: it is what only exists there
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)

log = structlog.get_logger("shop")
structlog.contextvars.bind_contextvars(order=7)
for line in sys.stdin:
    log.warning(f"said {line.strip()}", word=line.strip())
    print("journaled", flush=True)
