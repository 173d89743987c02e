"""The texts that ``lastwords setup`` prints: units, cron lines, rules, a dashboard."""

from __future__ import annotations

from string import Template
from typing import Any

FLUSH_UNITS = """\
# /etc/systemd/system/lastwords-flush.service
[Unit]
Description=Deliver what lastwords journals hold
After=network.target

[Service]
Type=oneshot
User=$user
${place}ExecStart=$command
# 75: entries remain, because a target is down. The next run tries again.
SuccessExitStatus=75

# /etc/systemd/system/lastwords-flush.timer
[Unit]
Description=Deliver what lastwords journals hold, every minute

[Timer]
OnCalendar=minutely
Persistent=true

[Install]
WantedBy=timers.target

# Then: systemctl daemon-reload && systemctl enable --now lastwords-flush.timer
"""

COURIER_UNIT = """\
# /etc/systemd/system/lastwords-courier.service
[Unit]
Description=lastwords courier
After=network.target

[Service]
Type=notify
User=$user
${place}ExecStart=$command
ExecReload=/bin/kill -HUP $$MAINPID
Restart=always
WatchdogSec=120
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target

# Then: systemctl daemon-reload && systemctl enable --now lastwords-courier.service
"""

CRON = """\
# Either for `crontab -e` of $user: every minute; a mail from cron means that something is stuck
* * * * * $command

# or as /etc/cron.d/lastwords, which names the user:
# * * * * * $user $command
"""

LOGROTATE = """\
# /etc/logrotate.d/lastwords
# No signal is needed: whoever writes looks whether the file at the path is still its own.
$files {
    daily
    rotate 14
    compress
    delaycompress
    missingok
    notifempty
    nocopytruncate
}
"""

ALERTS = """\
# Rules for Prometheus: promtool check rules FILE
groups:
  - name: lastwords
    rules:
      - alert: LastwordsStuck
        expr: lastwords_oldest_pending_age_seconds > 900
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "{{ $labels.journal }}: the oldest entry has waited for {{ $value | humanizeDuration }}"
          description: "Its target is down or refuses. See: lastwords status {{ $labels.journal }}"
      - alert: LastwordsBuried
        expr: increase(lastwords_dead_entries[1h]) > 0
        labels:
          severity: warning
        annotations:
          summary: "{{ $labels.journal }}: entries were buried"
          description: "The target refused them for good. See: lastwords dead list {{ $labels.journal }}"
      - alert: LastwordsDropped
        expr: increase(lastwords_dropped_entries_total[1h]) > 0
        labels:
          severity: critical
        annotations:
          summary: "{{ $labels.journal }}: entries were dropped"
          description: "The journal reached max_bytes while its target was down: the least severe went first."
      - alert: LastwordsUnreadable
        expr: lastwords_up == 0
        for: 5m
        labels:
          severity: critical
        annotations:
          summary: "{{ $labels.journal }}: cannot be read"
          description: "See: lastwords doctor {{ $labels.journal }}"
      - alert: LastwordsDamaged
        expr: lastwords_set_aside_files > 0
        labels:
          severity: warning
        annotations:
          summary: "{{ $labels.journal }}: was damaged, and was set aside"
          description: "See: lastwords doctor {{ $labels.journal }}"
"""

_PANELS = (
    ("Pending", "lastwords_pending_entries", "short"),
    ("Oldest pending", "lastwords_oldest_pending_age_seconds", "s"),
    ("Delivered per second", "rate(lastwords_delivered_entries_total[5m])", "ops"),
    ("Failed attempts per second", "rate(lastwords_retries_total[5m])", "ops"),
    ("Dead letters", "lastwords_dead_entries", "short"),
    ("Dropped", "lastwords_dropped_entries_total", "short"),
    ("Size", "lastwords_file_bytes + lastwords_wal_bytes", "bytes"),
    ("Readable", "lastwords_up", "short"),
)


def fill(text: str, **values: str) -> str:
    """The text with its values."""
    return Template(text).substitute(values)


def systemd_place(folder: str | None, variables: dict[str, str]) -> str:
    """Where a unit starts, and with which variables."""
    lines = [] if folder is None else [f"WorkingDirectory={folder.replace('%', '%%')}\n"]
    return "".join([*lines, *(f"Environment={systemd_word(f'{name}={value}')}\n" for name, value in variables.items())])


def systemd_word(word: str) -> str:
    """One argument of ExecStart= (systemd.service(5), COMMAND LINES): ``%`` and ``$`` are its own."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if any(letter in word for letter in " \t\"';"):
        return '"' + word.replace('"', '\\"') + '"'
    return word


def dashboard() -> dict[str, Any]:
    """A Grafana dashboard, to be imported: it asks for the Prometheus data source."""
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": "A", "expr": query, "legendFormat": "{{journal}}", "datasource": source}],
        }
        for number, (title, query, unit) in enumerate(_PANELS)
    ]
    return {
        "__inputs": [
            {"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "pluginId": "prometheus"},
        ],
        "title": "lastwords",
        "uid": "lastwords",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "panels": panels,
    }
