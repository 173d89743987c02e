"""The schema of a new journal, ready: what the migrations make of an empty file, statement by statement.

A service's first start would import sqlite-utils for that, which takes longer than all the rest. The migrations stay
what says how the format came about, and what brings older journals up; a test holds this list against them, and shows
what is to stand here when they have grown.
"""

from __future__ import annotations

PAGE_SIZE = 2048  # two thirds of the bytes written that 4096 takes, and no more CPU (1024: more)
STATEMENTS = (
    """CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
)""",
    """CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name")""",
    """CREATE TABLE entries (
            seq INTEGER PRIMARY KEY,
            created REAL NOT NULL,
            level INTEGER NOT NULL,
            payload TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            id TEXT
        )""",
    """CREATE TABLE cursor (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            settled INTEGER NOT NULL DEFAULT 0,
            fence INTEGER NOT NULL DEFAULT 0,
            consumed INTEGER NOT NULL DEFAULT 0,
            delivered INTEGER NOT NULL DEFAULT 0,
            dead INTEGER NOT NULL DEFAULT 0,
            dropped INTEGER NOT NULL DEFAULT 0,
            retries INTEGER NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            probe INTEGER NOT NULL DEFAULT 0,
            failed_at REAL,
            last_error TEXT,
            last_error_at REAL,
            last_delivery_at REAL
        )""",
    """CREATE TABLE ahead (seq INTEGER PRIMARY KEY)""",
    """CREATE TABLE dead_letters (
            id TEXT PRIMARY KEY,
            seq INTEGER NOT NULL,
            created REAL NOT NULL,
            level INTEGER NOT NULL,
            payload TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            error TEXT NOT NULL,
            traceback TEXT,
            attempts INTEGER NOT NULL,
            first_failed_at REAL,
            buried_at REAL NOT NULL
        )""",
    """CREATE TABLE drops (level INTEGER PRIMARY KEY, count INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0, first_at REAL, last_at REAL)""",
    """CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID""",
    """CREATE TABLE epochs (
            first_seq INTEGER PRIMARY KEY,
            uuid TEXT NOT NULL,
            boot TEXT NOT NULL,
            device INTEGER NOT NULL,
            inode INTEGER NOT NULL,
            begun_at REAL NOT NULL
        )""",
    """CREATE VIEW records AS
        SELECT r.seq AS seq, coalesce(r.id, (SELECT uuid FROM epochs WHERE first_seq <= r.seq ORDER BY first_seq DESC LIMIT 1) || '-' || r.seq) AS id,
            strftime('%Y-%m-%d %H:%M:%f', r.created, 'unixepoch') AS time_utc,
            coalesce(json_extract(r.json, '$.levelname'), CASE r.level WHEN 50 THEN 'CRITICAL' WHEN 40 THEN 'ERROR'
                WHEN 30 THEN 'WARNING' WHEN 20 THEN 'INFO' WHEN 10 THEN 'DEBUG' WHEN 0 THEN 'NOTSET'
                ELSE 'Level ' || r.level END) AS level,
            json_extract(r.json, '$.logger') AS logger,
            json_extract(r.json, '$.message') AS message,
            CASE WHEN r.seq <= c.settled OR r.seq IN (SELECT seq FROM ahead) THEN 'settled' ELSE 'pending' END AS state,
            coalesce(json_extract(r.json, '$.exc_info[0].module') || '.', '')
                || json_extract(r.json, '$.exc_info[0].type') AS exception_type,
            json_extract(r.json, '$.exc_info[0].text') AS exception_text,
            coalesce(json_extract(r.json, '$.rendered'), json_extract(r.json, '$.exc_text')) AS exception_traceback
        FROM (SELECT *, CASE WHEN json_valid(payload) THEN payload END AS json FROM entries) AS r, cursor AS c""",
    """CREATE VIEW dead AS
        SELECT r.seq AS seq, r.id AS id,
            strftime('%Y-%m-%d %H:%M:%f', r.created, 'unixepoch') AS time_utc,
            coalesce(json_extract(r.json, '$.levelname'), CASE r.level WHEN 50 THEN 'CRITICAL' WHEN 40 THEN 'ERROR'
                WHEN 30 THEN 'WARNING' WHEN 20 THEN 'INFO' WHEN 10 THEN 'DEBUG' WHEN 0 THEN 'NOTSET'
                ELSE 'Level ' || r.level END) AS level,
            json_extract(r.json, '$.logger') AS logger,
            json_extract(r.json, '$.message') AS message, r.error AS error, r.traceback AS traceback, r.attempts AS attempts,
            strftime('%Y-%m-%d %H:%M:%f', r.first_failed_at, 'unixepoch') AS first_failed_utc,
            strftime('%Y-%m-%d %H:%M:%f', r.buried_at, 'unixepoch') AS buried_utc,
            coalesce(json_extract(r.json, '$.exc_info[0].module') || '.', '')
                || json_extract(r.json, '$.exc_info[0].type') AS exception_type,
            json_extract(r.json, '$.exc_info[0].text') AS exception_text,
            coalesce(json_extract(r.json, '$.rendered'), json_extract(r.json, '$.exc_text')) AS exception_traceback
        FROM (SELECT *, CASE WHEN json_valid(payload) THEN payload END AS json FROM dead_letters) AS r""",
    # sqlite-utils' notes of what was applied, so that it applies the next step and no other.
    """INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
    SELECT 'lastwords', column1, strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now')
    FROM (VALUES ('m001_first_format'), ('m002_views_of_exceptions'))""",
    "INSERT INTO cursor (one) VALUES (1)",
    "INSERT INTO meta (key, value) VALUES ('format', '2'), ('min_reader', '1')",
)
