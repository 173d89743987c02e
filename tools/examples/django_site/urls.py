import logging

from django.http import HttpResponse
from django.urls import path

log = logging.getLogger("shop")


def say(request, word):
    log.warning("said %s", word)
    return HttpResponse(f"{word} is in the journal\n")


def fail(request):
    raise ValueError("the admins get a mail about this")


urlpatterns = [path("fail", fail), path("<str:word>", say)]
