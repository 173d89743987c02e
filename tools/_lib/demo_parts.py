"""The three programs of the demo: the mail server, the service, and the one who checks. Run inside a tools environment."""

import asyncio
import json
import logging
import logging.config
import logging.handlers
import os
import re
import signal
import sys
import time

# --- the mail server ------------------------------------------------------------------------------------


def serve(port, mailbox):
    """A real SMTP server; appends {"id":, "text":} for each mail it accepted, before it says 250."""
    from aiosmtpd.controller import Controller

    class Mailbox:
        async def handle_DATA(self, server, session, envelope):
            content = envelope.content.decode()
            ids = re.findall(r"^X-Lastwords-Id: (\S+)", content, re.MULTILINE)
            text = content.replace("\r\n", "\n").partition("\n\n")[2].strip()
            with open(mailbox, "a") as f:  # noqa: ASYNC230 - a mail is on the disk before we say 250
                f.write(json.dumps({"id": ids[0] if ids else None, "text": text}) + "\n")
                f.flush()
                os.fsync(f.fileno())
            await asyncio.sleep(0.01)  # a mail server takes its time
            return "250 OK"

    controller = Controller(Mailbox(), hostname="127.0.0.1", port=port)
    controller.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    controller.stop()


# --- the service ------------------------------------------------------------------------------------------


def logging_configuration(port, journal):
    """What the service and `lastwords flush --config` share."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "mail": {
                "class": "lastwords.DurableHandler",
                "journal": journal,
                "retry_min": 0.2,
                "retry_max": 1.0,
                "target": {
                    "class": "logging.handlers.SMTPHandler",
                    "mailhost": ["127.0.0.1", port],
                    "fromaddr": "app@example.com",
                    "toaddrs": ["ops@example.com"],
                    "subject": "Trouble in the service",
                },
            }
        },
        "loggers": {"service": {"handlers": ["mail"], "level": "INFO", "propagate": False}},
    }


def service(run, count, pause, port, journal, broken):
    """Log; write each message to stdout as soon as its logging call has returned."""
    if broken:  # the negative control: no journal, the bare handler
        mail = logging.handlers.SMTPHandler(
            ("127.0.0.1", port), "app@example.com", ["ops@example.com"], "Trouble", timeout=2
        )
        mail.handleError = lambda record: None
        logging.getLogger("service").addHandler(mail)
        logging.getLogger("service").setLevel("INFO")
        logging.getLogger("service").propagate = False
    else:
        logging.config.dictConfig(logging_configuration(port, journal))
    log = logging.getLogger("service")
    for i in range(count):
        message = f"run {run}, record {i}"
        log.error(message)
        os.write(1, (message + "\n").encode())
        time.sleep(pause)


if __name__ == "__main__":
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    {"serve": serve, "service": service}[kind](**arguments)
