"""What log_config.json names: the handler, with its settings from the environment."""

import os

import lastwords

HERE = os.path.dirname(os.path.abspath(__file__))


def durable():
    return lastwords.DurableHandler(
        os.environ.get("LOG_TARGET", f"file:{HERE}/app.jsonl?format=json"),
        os.environ.get("LOG_JOURNAL", f"{HERE}/app.db"),
    )
