"""`--config settings:LOGGING` of a Django site, whose django.setup() nobody has called."""

import os

import pytest

from cli.tools import counts, log_to, start


@pytest.mark.slow
def test_cron_mails_what_django_would_without_its_applications_loaded(tmp_path):
    """The settings' AdminEmailHandler needs them for templates and translations; nobody has called django.setup()."""
    pytest.importorskip("django")
    (tmp_path / "site_settings.py").write_text(
        "import django\nADMINS = ['a@x.test'] if django.VERSION >= (6,) else [('A', 'a@x.test')]\nSECRET_KEY = 'x'\n"
        "EMAIL_BACKEND = 'django.core.mail.backends.filebased.EmailBackend'\n"
        f"EMAIL_FILE_PATH = {str(tmp_path / 'mails')!r}\n"
        "LOGGING = {'version': 1, 'handlers': {'admins': {'class': 'lastwords.DurableHandler', "
        f"'journal': {str(tmp_path / 'm.db')!r}, 'target': {{'class': 'django.utils.log.AdminEmailHandler'}}}}}}}}\n"
    )
    log_to(tmp_path / "m.db", 2)
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "site_settings"}
    flush = start("flush", "--config", "site_settings:LOGGING", "--timeout", "20", cwd=tmp_path, env=env)
    _, errors = flush.communicate(timeout=120)
    assert flush.returncode == 0, errors
    assert counts(tmp_path / "m.db") == (0, 2, 0)
    mails = "".join(
        path.read_text() for path in (tmp_path / "mails").iterdir()
    )  # a file for each, if their names differ
    assert mails.count("Subject: [Django] ") == 2
