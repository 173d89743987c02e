"""Django in one file of settings: errors go to a receiver and by mail to the admins, and survive kill -9.

pip install django gunicorn 'lastwords[http]'
gunicorn wsgi:application
curl localhost:8000/hello; curl localhost:8000/fail

The targets are nested mappings: lastwords builds them itself, and anew after a failure. What they cannot deliver, because
a server is down or the process is killed, waits in the journal for the next start, or for:

lastwords flush --config settings:LOGGING
"""

import os

HERE = os.path.dirname(os.path.abspath(__file__))

SECRET_KEY = "only an example"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "urls"
ADMINS = [("Ops", "ops@example.com")]
EMAIL_HOST = os.environ.get("MAIL_HOST", "localhost")
EMAIL_PORT = int(os.environ.get("MAIL_PORT", "25"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "durable": {
            "class": "lastwords.DurableHandler",
            "journal": os.environ.get("LOG_JOURNAL", f"{HERE}/site.db"),
            "target": os.environ.get("LOG_TARGET", f"file:{HERE}/site.jsonl?format=json"),
        },
        "admins": {
            "class": "lastwords.DurableHandler",
            "journal": os.environ.get("LOG_JOURNAL", f"{HERE}/site.db")
            + "-mail.db",  # one journal for each destination
            "level": "ERROR",
            "target": {"class": "django.utils.log.AdminEmailHandler"},
        },
    },
    "root": {"handlers": ["durable"], "level": "INFO"},
    "loggers": {"django": {"handlers": ["admins"]}},  # in place of Django's own, which would mail everything once more
}
