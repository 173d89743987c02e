"""asyncio: a logging call commits in some 20 us and never waits for a network, so it may stand in a coroutine.

pip install 'lastwords[http]'
echo hello | python app.py

An ERROR is synced to the medium before the call returns, which takes as long as the disk takes (0.2 ms on an SSD, 10 ms
on a slow disk). Where that is too long for your loop: sync_level="CRITICAL", or await asyncio.to_thread(log.error, ...).
"""

import asyncio
import logging
import os
import sys

import lastwords

HERE = os.path.dirname(os.path.abspath(__file__))
log = logging.getLogger("shop")


async def main():
    log.addHandler(
        lastwords.DurableHandler(
            os.environ.get("LOG_TARGET", f"file:{HERE}/app.jsonl?format=json"),
            os.environ.get("LOG_JOURNAL", f"{HERE}/app.db"),
        )
    )
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        log.warning("said %s", line.decode().strip())
        print("journaled", flush=True)


asyncio.run(main())
