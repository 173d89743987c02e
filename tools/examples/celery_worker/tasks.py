"""Celery, prefork: the handler is made once, in the main process; each child opens its own connection.

pip install celery 'lastwords[http]'
celery -A tasks worker --concurrency 2
python -c "import tasks; tasks.say.delay('hello')"
"""

import functools
import logging
import os

import lastwords
from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger

HERE = os.path.dirname(os.path.abspath(__file__))
QUEUE = os.environ.get("CELERY_FOLDER", f"{HERE}/queue")  # a broker for an example: files in a folder
os.makedirs(QUEUE, exist_ok=True)

app = Celery(
    "tasks",
    broker="filesystem://",
    broker_transport_options={"data_folder_in": QUEUE, "data_folder_out": QUEUE},
)
log = logging.getLogger("shop")


@functools.cache
def durable():
    """One handler for both loggers."""
    return lastwords.DurableHandler(
        os.environ.get("LOG_TARGET", f"file:{HERE}/tasks.jsonl?format=json"),
        os.environ.get("LOG_JOURNAL", f"{HERE}/tasks.db"),
    )


@after_setup_logger.connect  # the root
@after_setup_task_logger.connect  # get_task_logger's, which do not propagate to it
def add_durable(logger, **_):
    """Celery configures these loggers itself; this is its place for what comes on top."""
    logger.addHandler(durable())


@app.task
def say(word):
    log.warning("said %s", word)
