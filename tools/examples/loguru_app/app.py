"""loguru as the source: its records go to the standard library's handler, with their exceptions and extras.

pip install loguru 'lastwords[http]'
echo hello | python app.py
"""

import os
import sys

import lastwords
from loguru import logger

HERE = os.path.dirname(os.path.abspath(__file__))

handler = lastwords.DurableHandler(
    os.environ.get("LOG_TARGET", f"file:{HERE}/app.jsonl?format=json"), os.environ.get("LOG_JOURNAL", f"{HERE}/app.db")
)
logger.remove()
logger.add(handler, format="{message}")  # not enqueue=True: that queue is in memory

for line in sys.stdin:
    logger.warning("said {}", line.strip())
    print("journaled", flush=True)
