"""FastAPI under uvicorn: the handler comes from uvicorn's own --log-config, in every worker.

pip install fastapi uvicorn 'lastwords[http]'
uvicorn app:app --workers 2 --log-config log_config.json
curl localhost:8000/hello
"""

import logging

from fastapi import FastAPI

log = logging.getLogger("shop")
app = FastAPI()


@app.get("/{word}")
async def say(word: str):
    log.warning("said %s", word)  # committed when this returns; no await is needed, and no network is waited for
    return {"journaled": word}
