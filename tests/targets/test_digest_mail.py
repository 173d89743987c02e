"""What a digest says: every record is shown or counted, nothing in a record acts on its reader."""

import email
import email.policy
import logging
import random
import re
import sys
from html.parser import HTMLParser

import pytest

from lastwords.record import codec
from lastwords.targets import SMTPDigest
from lastwords.targets.digest.content import DETAILS, Gap, Shown, make, ranges


@pytest.fixture
def log():
    """Entries as the courier hands them over: log(logger, level, template, *args)."""
    entries = []

    def make_one(name, level, message, *args, exc_info=None, at=0.0, **extra):
        live = logging.LogRecord(name, level, f"/srv/{name}.py", 7, message, args, exc_info, "work")
        live.created = 1_790_000_000.25 + at
        live.__dict__.update(extra)
        number = len(entries) + 1
        created, levelno, payload, _ = codec.encode(live)
        entries.append(codec.decode(seq=number, id=f"e1-{number}", created=created, level=levelno, payload=payload))

    make_one.entries = entries
    return make_one


def digest(**knobs):
    return SMTPDigest("localhost", "app@x.test", ["ops@x.test"], app="billing", **knobs)


def compose(entries, **knobs):
    mail, taken = digest(**knobs)._compose(entries)
    return email.message_from_bytes(mail.as_bytes(), policy=email.policy.default), taken


def parts(mail):
    assert mail.get_content_type() == "multipart/alternative"
    text, html = mail.iter_parts()
    assert text.get_content_type() == "text/plain" and html.get_content_type() == "text/html"
    return text.get_content(), html.get_content()


class Visible(HTMLParser):
    """The text of an HTML page, its tags, and whether they are balanced."""

    VOID = {"meta", "br"}

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.open, self.attributes = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def flood(log, count=1000):
    for number in range(count):
        if number % 400 == 100:
            log("app.db", 50, "pool exhausted", at=number / 10)
        else:
            log("app.web", 40, "cannot reach %s", random.choice(["db1", "db2"]), at=number / 10)


def test_a_flood_is_one_readable_mail(log):
    """Counts by level and logger, first and last time with the zone, folded messages with counts and examples."""
    flood(log)
    mail, taken = compose(log.entries)
    text, html = parts(mail)
    assert taken == 1000
    assert re.fullmatch(r"\[\S+ billing\] 3 CRITICAL, 997 ERROR: pool exhausted", mail["Subject"])
    for page in (text, " ".join(Visible(html).text)):
        assert "3 CRITICAL" in page and "997 ERROR" in page
        assert "cannot reach %s" in page and "cannot reach db1" in page and "cannot reach db2" in page
        assert re.search(r"2026-\d\d-\d\d \d\d:\d\d:\d\d to .*\(UTC[+-]\d\d:\d\d, 1 min 39 s\)", page)
        assert "e1-1..1000" in page
    assert len(html.encode()) < 100_000 and len(text) < 20_000


def test_every_record_is_shown_or_counted_in_its_place(log):
    """Shown records and gaps add up to all, in every detail; a kind's count is right."""
    generator = random.Random(7)
    for _ in range(400):
        log(
            generator.choice("abc"),
            generator.choice([30, 40, 50]),
            generator.choice(["x %d", "y %d"]),
            generator.randint(1, 3),
        )
    for detail in DETAILS:
        made = make(log.entries, detail)
        shown = [item for item in made.items if isinstance(item, Shown)]
        gaps = [item for item in made.items if isinstance(item, Gap)]
        assert len(shown) + sum(gap.count for gap in gaps) == 400 and len(shown) == made.shown
        assert sum(kind.count for kind in made.kinds) == 400
        for kind in made.kinds:
            counted = sum(count for gap in gaps for k, count in gap.kinds if k is kind)
            assert counted + sum(item.kind is kind for item in shown) == kind.count
            assert any(item.kind is kind for item in shown)
        assert [item.id for item in shown] == [e.id for e in log.entries if e.id in {s.id for s in shown}]


def test_texts_that_are_folded_away_are_listed_while_there_is_room(log):
    """What the arguments were is often what is looked for."""
    for number in range(20):
        log("app", 40, "invoice %d failed", 4700 + number)
    text, html = parts(compose(log.entries)[0])
    for number in range(20):
        assert f"invoice {4700 + number} failed" in text and f"invoice {4700 + number} failed" in html


def test_fstrings_that_differ_by_numbers_are_one_kind_and_other_texts_are_not(log):
    """They have no template to tell by."""
    for number in range(5):
        log("app", 40, f"invoice {number} failed at 0x{number:08x}")
    log("app", 40, "invoice was lost")
    log("other", 40, "invoice 1 failed at 0x1")
    assert sorted(kind.count for kind in make(log.entries, DETAILS[0]).kinds) == [1, 1, 5]


def test_the_same_template_with_another_exception_is_another_kind(log):
    """ "job failed" hides more than one trouble."""
    for kind in (ValueError, KeyError, ValueError):
        try:
            raise kind("no")
        except Exception:
            log("app", 40, "job failed", exc_info=sys.exc_info())
    made = make(log.entries, DETAILS[0])
    assert [(kind.exception, kind.count) for kind in made.kinds] == [("ValueError", 2), ("KeyError", 1)]
    text, html = parts(compose(log.entries)[0])
    assert "ValueError: no" in text and "KeyError: 'no'" in text and "KeyError: &#x27;no&#x27;" in html
    assert "Traceback (most recent call last)" in html


@pytest.mark.slow
def test_a_mail_that_would_be_too_large_takes_fewer_entries(log):
    """The first ones, whole; the rest follows in the next mail."""
    for number in range(500):
        log("app", 40, "".join(random.Random(number).choices("abcdefgh ", k=300)))
    done, mails = 0, 0
    while done < 500:
        mail, taken = compose(log.entries[done:])
        text, html = parts(mail)
        assert taken >= 1 and max(len(text.encode()), len(html.encode())) <= 100_000
        for entry in log.entries[done : done + taken]:
            assert entry.message in text and entry.id in html
        done, mails = done + taken, mails + 1
    assert 1 < mails < 12


@pytest.mark.slow
def test_one_record_of_megabytes_is_cut_and_says_so(log):
    """Its beginning, its end, and how much is missing; the mail is still a mail."""
    log("app", 40, "begin " + "x" * 5_000_000 + " end", blob="y" * 1_000_000)
    mail, taken = compose(log.entries)
    text, html = parts(mail)
    assert taken == 1 and len(mail.as_bytes()) < 100_000
    assert "begin x" in text and "x end" in text and re.search(r"\[\.\.\. [\d,]+ characters cut \.\.\.\]", text)
    assert "characters cut" in html


EVIL = 'evil"><script>alert(1)</script><img src=x onerror=alert(1)>\r\nBcc: victim@x.test\r\n\r\nbody\x1b[2J\u202e'


def test_nothing_in_a_record_becomes_a_header_or_an_element(log):
    """Message, logger, level name, file, thread, extras, exception: all are texts."""

    class Evil(Exception):
        __qualname__ = "<b>Evil</b>\r\nX: y"

    try:
        raise Evil(EVIL)
    except Evil:
        exc_info = sys.exc_info()
    log("a", 40, "harmless")
    clean_mail = compose(log.entries)[0]
    for args in ((), (EVIL,)):
        log(EVIL, 50, EVIL if not args else "%s " + EVIL, *args, exc_info=exc_info, **{EVIL: EVIL, "x": EVIL})
    for entry in log.entries[1:]:
        entry.record.levelname = entry.record.threadName = entry.record.pathname = entry.record.stack_info = EVIL
    mail, _ = compose(log.entries)
    assert sorted(mail.keys()) == sorted(clean_mail.keys()) and mail["Bcc"] is None
    assert "\n" not in mail["Subject"]
    text, html = parts(mail)
    page = Visible(html)
    assert not {"script", "img", "b>Evil", "a"} & set(page.tags)
    assert not any(name.startswith("on") or "alert" in (value or "") for name, value in page.attributes)
    assert "<script>alert(1)</script>" in "".join(page.text)
    for forbidden in ("\x1b", "\u202e"):
        assert forbidden not in text and forbidden not in html


def test_every_line_is_short_enough_for_every_server_and_seven_bits_wide(log):
    """RFC 5322: 998 characters; a server without 8BITMIME."""
    log("äpp", 40, "ü" * 5000, ключ="значение")
    mail, _ = digest()._compose(log.entries)
    raw = mail.as_bytes()
    assert max(len(line) for line in raw.splitlines()) <= 998 and raw.isascii()


def test_the_message_id_is_made_from_the_ids(log):
    """The same entries, the same Message-ID, in another process too; other entries, another one."""
    flood(log, 10)
    first, again = compose(log.entries)[0], compose(log.entries)[0]
    other = compose(log.entries[1:])[0]
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert re.fullmatch(r"<e1-1\.10\.[0-9a-f]{16}@x\.test>", first["Message-ID"])
    assert first["X-Lastwords-Ids"] == "e1-1..10"
    assert first["Auto-Submitted"] == "auto-generated" and first["Date"] and first["X-Mailer"].startswith("lastwords")


def test_ids_are_named_in_short(log):
    """Runs, single ones, and ids that somebody else made."""
    flood(log, 5)
    kept = [log.entries[i] for i in (0, 1, 2, 4)]
    assert ranges(kept) == "e1-1..3, e1-5"
    kept[0].id = "odd"
    assert ranges(kept) == "e1-2..3, e1-5, odd"


def test_the_subject_has_a_message_and_not_its_template(log):
    """That of most records: an order, a host, a file."""
    for number in (7, 8, 8):
        log("shop", logging.ERROR, "order %d failed", number)
    assert compose(log.entries)[0]["Subject"].endswith("3 ERROR: order 8 failed")


def test_the_subject_can_begin_with_what_the_user_likes(log):
    """?subject=; long ones are cut, odd levels named."""
    log("app", 37, "x" * 500)
    assert compose(log.entries, subject="Käse!")[0]["Subject"].startswith("Käse! 1 Level 37: xxx")
    assert len(compose(log.entries)[0]["Subject"]) <= 150


def test_a_single_record_has_no_summary_of_itself(log):
    """The commonest mail of all."""
    log("app", 40, "disk full", host="db1")
    text, html = parts(compose(log.entries)[0])
    assert "What happened" not in text + html and "like this" not in text + html
    assert text.count("disk full") == 1 and html.count("disk full") == 1 and "host = db1" in text


def test_times_that_no_calendar_has_do_not_stop_the_mail(log):
    """A record's created is whatever somebody wrote there."""
    log("app", 40, "late", at=1e18)
    log("app", 40, "early", at=-1e18)
    text, _ = parts(compose(log.entries)[0])
    assert "late" in text and "early" in text


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"toaddrs": []}, "at least one"),
        ({"toaddrs": ["a@x.test\nBcc: b@x.test"]}, "mail addresses"),
        ({"fromaddr": "nobody"}, None),
        ({"fromaddr": "a@x.test\r\nX: y"}, "from must be"),
        ({"starttls": "maybe"}, "required, if-offered, never"),
        ({"max_bytes": 10}, "max_bytes"),
        ({"subject": "a\nb"}, "subject"),
    ],
)
def test_bad_values_are_refused_at_construction(knobs, words):
    """ValueError that names the knob."""
    arguments = {"mailhost": ("localhost", 2525), "fromaddr": "App <app@x.test>", "toaddrs": "ops@x.test"} | knobs
    if words is None:
        SMTPDigest(**arguments)
        return
    with pytest.raises(ValueError, match=words):
        SMTPDigest(**arguments)
