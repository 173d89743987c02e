"""What is done with the files of a page of the manual, after its own code: as its reader would, but in one process.

``wait()`` lets every DurableHandler deliver what it has; ``lines(name)`` is what a file of JSON lines then has.
"""

END = """
from lastwords.engine import open_engines
for engine in open_engines():
    engine.drain_timeout = 0.2  # a page's target may not be there
"""

HELPERS = """
import json, logging, os, sys
import lastwords

def wait():
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {h for logger in loggers for h in getattr(logger, "handlers", ()) if isinstance(h, lastwords.DurableHandler)}
    assert handlers
    for handler in handlers:
        assert handler.drain(60), handler

def lines(name):
    wait()
    return [json.loads(line) for line in open(name)]

sys.stderr = sys.stdout  # where the services' own handlers show tracebacks
"""

DJANGO = """
import socket
from aiosmtpd.controller import Controller

class Mailbox:
    got = []
    async def handle_DATA(self, server, session, envelope):
        self.got.append(envelope.content.decode())
        return "250 OK"

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
controller = Controller(Mailbox(), hostname="127.0.0.1", port=port, ready_timeout=60)
controller.start()
os.environ.update(DJANGO_SETTINGS_MODULE="settings", EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(port))
import django
django.setup()
from django.test import Client
client = Client(raise_request_exception=False)
assert client.get("/hello").status_code == 200
assert client.get("/fail").status_code == 500
(said,) = [line for line in lines("site.jsonl") if line["logger"] == "shop"]
assert said["message"] == "said hello" and said["extra"] == {"path": "/hello"}
import email.policy
mail = email.message_from_string(Mailbox.got[0], policy=email.policy.default)
assert "IP): Internal Server Error: /fail" in mail["Subject"], mail["Subject"]
text = mail.get_body().get_content()
assert "Request Method: GET" in text and "ValueError" in text, text
controller.stop()
"""

FLASK = """
import app
assert app.app.test_client().get("/hello").status_code == 200
(said,) = lines("app.jsonl")
assert said["message"] == "said hello" and said["extra"] == {"path": "/hello", "method": "GET"}
configuration = {}
exec(open("gunicorn.conf.py").read(), configuration)
import copy, logging.config
from gunicorn.glogging import CONFIG_DEFAULTS, Logger
from gunicorn.config import Config
config = Config()
config.set("logconfig_dict", configuration["logconfig_dict"])
gunicorn = Logger(config)
app.logging.getLogger().addHandler(app.durable)
gunicorn.error("from gunicorn")
assert [line["message"] for line in lines("app.jsonl")] == ["said hello", "from gunicorn"]
"""

FASTAPI = """
import threading, time, urllib.request, uvicorn
server = uvicorn.Server(uvicorn.Config("app:app", log_config="log_config.json", port=0))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
while not server.started:
    assert thread.is_alive()
    time.sleep(0.01)
port = server.servers[0].sockets[0].getsockname()[1]
assert urllib.request.urlopen(f"http://127.0.0.1:{port}/hello").status == 200
server.should_exit = True
thread.join()
assert [line["message"] for line in lines("app.jsonl") if line["logger"] == "shop"] == ["said hello"]
assert any(line["logger"].startswith("uvicorn") for line in lines("app.jsonl"))
"""

CELERY = """
os.environ["BROKER"] = "memory://"
import tasks
tasks.app.log.setup(loglevel="INFO", redirect_stdouts=False)

@tasks.app.task
def fail():
    1 / 0

tasks.app.finalize()
from celery.app.trace import build_tracer
for task in (tasks.say, fail):
    build_tracer(task.name, task, app=tasks.app)("id-1", ("hello",) if task is tasks.say else (), {})
got = {(line["logger"], line["message"].split("[")[0]) for line in lines("tasks.jsonl")}
assert ("tasks", "said hello") in got and any(logger == "celery.app.trace" for logger, _ in got), got
import jobs
jobs.say("there")
assert [line["message"] for line in lines("jobs.jsonl")] == ["said there"]
"""

PYTEST = """
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
import pytest
assert pytest.main(["-q", "-p", "no:cacheprovider", "--durations=5", "test_shop.py", "test_app.py"]) == 0
"""

DOCKER = """
import time

def stop(_):
    raise KeyboardInterrupt

time.sleep = stop
program = open("app.py").read()
assert program.count("/journal/shop.db") == 1
try:
    exec(program.replace("/journal/shop.db", os.path.abspath("shop.db")))
except KeyboardInterrupt:
    pass
with lastwords.Journal("shop.db") as journal:
    assert [entry.message for entry in journal.entries()] == ["still here"]
import yaml
compose, pod = (yaml.safe_load(open(name)) for name in ("compose.yaml", "pod.yaml"))
assert compose["services"]["courier"]["command"][:2] == pod["spec"]["initContainers"][0]["command"][:2]
from click import Context
from lastwords.cli import courier
for words in (compose["services"]["courier"]["command"], pod["spec"]["initContainers"][0]["command"]):
    courier.command.make_context("courier", words[2:])
"""

# By page: what it needs to be run, and the program.
PROGRAMS = {
    "django": ("django aiosmtpd", DJANGO),
    "flask-and-gunicorn": ("flask gunicorn", FLASK),
    "fastapi-and-uvicorn": ("fastapi uvicorn", FASTAPI),
    "celery-and-rq": ("celery rq redis", CELERY),
    "pytest": ("pytest", PYTEST),
    "docker-and-kubernetes": ("yaml", DOCKER),
}
