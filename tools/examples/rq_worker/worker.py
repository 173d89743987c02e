"""The worker: it imports the jobs before it forks, so that it has the handler, too.

A child leaves by os._exit and delivers nothing; the worker itself, which never logs, sees what its children committed.
With the plain `rq worker`, which imports the jobs in the child only, nobody in the worker has the handler: use a courier.
"""

import os

import jobs  # noqa: F401 - for its handler
import redis
import rq

if __name__ == "__main__":
    rq.Worker(["shop"], connection=redis.Redis.from_url(os.environ.get("RQ_REDIS_URL", "redis://localhost"))).work()
