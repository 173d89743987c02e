"""RQ: each job runs in a forked child that leaves by os._exit, without atexit. What it logged is in the journal.

pip install rq 'lastwords[http]'
python worker.py
python -c "import jobs; jobs.ask('hello')"
"""

import logging
import os

import lastwords
import redis
import rq

HERE = os.path.dirname(os.path.abspath(__file__))
log = logging.getLogger("shop")
log.addHandler(
    lastwords.DurableHandler(
        os.environ.get("LOG_TARGET", f"file:{HERE}/jobs.jsonl?format=json"),
        os.environ.get("LOG_JOURNAL", f"{HERE}/jobs.db"),
    )
)


def say(word):
    log.warning("said %s", word)


def ask(word):
    rq.Queue("shop", connection=redis.Redis.from_url(os.environ.get("RQ_REDIS_URL", "redis://localhost"))).enqueue(
        say, word
    )
