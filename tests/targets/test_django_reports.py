"""Django's error mails, live and through a journal, side by side."""

import copy
import importlib.util
import io
import logging
import re

import pytest

from lastwords import DurableHandler

if not importlib.util.find_spec("django"):
    pytest.skip("needs django", allow_module_level=True)


@pytest.fixture(autouse=True)
def django():
    import django
    from django.conf import settings
    from django.test.utils import override_settings

    if not settings.configured:
        settings.configure(SECRET_KEY="x")
        django.setup()
    admins = ["a@x.test"] if django.VERSION >= (6,) else [("A", "a@x.test")]
    with override_settings(
        ADMINS=admins, EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend", ALLOWED_HOSTS=["shop.test"],
        ROOT_URLCONF=__name__, MIDDLEWARE=[], DEBUG=False,
    ):  # fmt: skip
        yield


urlpatterns = []


class Somebody:
    def __str__(self):
        return "ann"


def a_request(**meta):
    from django.core.handlers.wsgi import WSGIRequest

    body = b"amount=3&card=c4rd"
    request = WSGIRequest(
        {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/orders/7/", "QUERY_STRING": "page=2&page=3", "SERVER_NAME": "shop.test",
            "SERVER_PORT": "8000", "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": len(body),
            "CONTENT_TYPE": "application/x-www-form-urlencoded", "HTTP_COOKIE": "sessionid=s3cret; theme=dark",
            "HTTP_AUTHORIZATION": "Bearer s3cret", "REMOTE_ADDR": "10.1.1.1", **meta,
        }
    )  # fmt: skip
    request.sensitive_post_parameters = ["card"]
    request.user = Somebody()
    return request


def mails(log):
    """What ``log`` has mailed: subject, text and page, without the time and the variables of frames."""
    from django.core import mail

    outbox, mail.outbox = mail.outbox, []
    for each in outbox:
        page = "".join(content for content, _ in each.alternatives)
        page = re.sub(r'(?s)<div class="commands">.*?</table>', "", page)
        changing = r"(?m)0x[0-9a-f]+|^(Server time:|.*<td>\w+, \d+ \w+ \d+ ).*$"
        yield [re.sub(changing, "", text) for text in (each.subject, each.body, page)]


@pytest.fixture
def both(tmp_path):
    """``both(log_one, include_html)``: its mails, live and journaled."""
    from django.core import mail
    from django.utils.log import AdminEmailHandler

    mail.outbox = []
    handler = DurableHandler(AdminEmailHandler(include_html=True), tmp_path / "j.db")

    def both(log_one):
        for each in (AdminEmailHandler(include_html=True), handler):
            log = logging.Logger("django.request")
            log.addHandler(each)
            log_one(log)
            assert handler.drain(60), handler.stats()
            yield list(mails(log))

    yield both
    handler.close()


def fail(log, request):
    def view(request):
        raise ValueError("basket is empty")

    try:
        view(request)
    except ValueError:
        log.exception("Internal Server Error: %s", request.path, extra={"status_code": 500, "request": request})


def test_the_mail_of_a_failed_request_says_what_the_live_one_says(both):
    """Method, address, parameters, user, headers, and the traceback; a page, too."""
    live, replayed = both(lambda log: fail(log, a_request()))
    ((subject, text, page),) = replayed
    assert subject == "[Django] ERROR (EXTERNAL IP): Internal Server Error: /orders/7/"
    for said in ("Request Method: POST", "https://shop.test:8000/orders/7/?page=2&page=3", "USER: ann", "amount = '3'"):
        assert said in text
    assert replayed[0][:2] == live[0][:2]
    assert page.partition("<h2>Request information")[2] == live[0][2].partition("<h2>Request information")[2]


def test_what_django_hides_in_its_mails_is_not_in_the_journal(both, tmp_path):
    """Cookies, tokens, and what a view declares sensitive; the application's own record is left alone."""
    request = a_request()
    live, _ = both(lambda log: fail(log, request))
    journal = b"".join(each.read_bytes() for each in tmp_path.glob("j.db*"))
    assert b"s3cret" not in journal and b"c4rd" not in journal and b"orders/7" in journal
    assert request.COOKIES["sessionid"] == "s3cret" and len(live) == 1


class Gone:
    def __str__(self):
        raise OSError("no database")


def test_a_request_that_cannot_be_read_costs_no_mail(both):
    """The user's table is gone, the client, too."""

    def broken(log):
        request = a_request()
        request.user = Gone()
        fail(log, request)

    live, replayed = both(broken)
    assert replayed[0][:2] == live[0][:2] and "unable to retrieve the current user" in replayed[0][1]


@pytest.mark.parametrize("odd", [None, "text", {"META": {}}, {"META": 5}])
def test_what_is_no_request_is_left_as_it_is(both, odd):
    """An application may call something else by that name."""
    live, replayed = both(lambda log: log.error("x", extra={"request": copy.copy(odd)}))
    assert replayed[0][:2] == live[0][:2]
