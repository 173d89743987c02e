"""The journal's schema, step by step. Run by the package itself, or by hand: ``sqlite-utils migrate j.db migrations/``.

Rules: this file never imports lastwords and is exec'ed by sqlite-utils, so it stands alone.
Every step is additive and transactional; the number of steps is the format (PRAGMA user_version),
and ``meta.min_reader`` says which formats may still read the file.
"""

from sqlite_utils import Migrations

migration = Migrations("lastwords")


@migration()
def m001_first_format(db):
    # seq: the place in the line. No AUTOINCREMENT and no index: each costs every record 15-20 %. The newest row is
    # never deleted instead, so that max(seq) + 1 is always new. id is set only where it is not "<epoch uuid>-<seq>":
    # requeued and salvaged entries keep the one they had.
    db.execute(
        """CREATE TABLE entries (
            seq INTEGER PRIMARY KEY,
            created REAL NOT NULL,
            level INTEGER NOT NULL,
            payload TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            id TEXT
        )"""
    )
    # One row. settled: the cursor. fence: raised by a takeover; a mark with an old fence changes nothing.
    # consumed: how many seqs were settled, buried or dropped; pending = max(seq) - consumed, without counting rows.
    # attempts, probe, failed_at: what is known against the entry at the head of the line.
    db.execute(
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
        )"""
    )
    db.execute("INSERT INTO cursor (one) VALUES (1)")
    # Settled out of order: accepted while the head of the line was probed. Emptied as the cursor passes.
    db.execute("CREATE TABLE ahead (seq INTEGER PRIMARY KEY)")
    db.execute(
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
        )"""
    )
    # told: how many of the dropped were reported to the target.
    db.execute(
        "CREATE TABLE drops (level INTEGER PRIMARY KEY, count INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0,"
        " first_at REAL, last_at REAL)"
    )
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    db.execute("INSERT INTO meta (key, value) VALUES ('format', '1'), ('min_reader', '1')")
    db.execute(
        """CREATE TABLE epochs (
            first_seq INTEGER PRIMARY KEY,
            uuid TEXT NOT NULL,
            boot TEXT NOT NULL,
            device INTEGER NOT NULL,
            inode INTEGER NOT NULL,
            begun_at REAL NOT NULL
        )"""
    )
    # For people with sqlite3, sqlite-utils or Datasette.
    db.execute(
        """CREATE VIEW records AS
        SELECT e.seq AS seq,
            coalesce(e.id, (SELECT uuid FROM epochs WHERE first_seq <= e.seq ORDER BY first_seq DESC LIMIT 1)
                || '-' || e.seq) AS id,
            strftime('%Y-%m-%d %H:%M:%f', e.created, 'unixepoch') AS time_utc,
            coalesce(json_extract(e.payload, '$.levelname'), CASE e.level WHEN 50 THEN 'CRITICAL' WHEN 40 THEN 'ERROR'
                WHEN 30 THEN 'WARNING' WHEN 20 THEN 'INFO' WHEN 10 THEN 'DEBUG' WHEN 0 THEN 'NOTSET'
                ELSE 'Level ' || e.level END) AS level,
            json_extract(e.payload, '$.logger') AS logger,
            json_extract(e.payload, '$.message') AS message,
            CASE WHEN e.seq <= c.settled OR e.seq IN (SELECT seq FROM ahead) THEN 'settled' ELSE 'pending' END AS state
        FROM entries AS e, cursor AS c"""
    )


@migration()
def m002_views_of_exceptions(db):
    # A payload that is no JSON must not make a whole view fail, and an exception is to be found by its type.
    shown = """r.seq AS seq, {id} AS id,
            strftime('%Y-%m-%d %H:%M:%f', r.created, 'unixepoch') AS time_utc,
            coalesce(json_extract(r.json, '$.levelname'), CASE r.level WHEN 50 THEN 'CRITICAL' WHEN 40 THEN 'ERROR'
                WHEN 30 THEN 'WARNING' WHEN 20 THEN 'INFO' WHEN 10 THEN 'DEBUG' WHEN 0 THEN 'NOTSET'
                ELSE 'Level ' || r.level END) AS level,
            json_extract(r.json, '$.logger') AS logger,
            json_extract(r.json, '$.message') AS message"""
    exception = """coalesce(json_extract(r.json, '$.exc_info[0].module') || '.', '')
                || json_extract(r.json, '$.exc_info[0].type') AS exception_type,
            json_extract(r.json, '$.exc_info[0].text') AS exception_text,
            coalesce(json_extract(r.json, '$.rendered'), json_extract(r.json, '$.exc_text')) AS exception_traceback"""
    rows = "(SELECT *, CASE WHEN json_valid(payload) THEN payload END AS json FROM {table}) AS r"
    epoch = "(SELECT uuid FROM epochs WHERE first_seq <= r.seq ORDER BY first_seq DESC LIMIT 1)"
    db.execute("DROP VIEW IF EXISTS records")
    db.execute(
        f"""CREATE VIEW records AS
        SELECT {shown.format(id=f"coalesce(r.id, {epoch} || '-' || r.seq)")},
            CASE WHEN r.seq <= c.settled OR r.seq IN (SELECT seq FROM ahead) THEN 'settled' ELSE 'pending' END AS state,
            {exception}
        FROM {rows.format(table="entries")}, cursor AS c"""
    )
    # error: why the target did not take it; traceback: that of the last attempt.
    db.execute(
        f"""CREATE VIEW IF NOT EXISTS dead AS
        SELECT {shown.format(id="r.id")}, r.error AS error, r.traceback AS traceback, r.attempts AS attempts,
            strftime('%Y-%m-%d %H:%M:%f', r.first_failed_at, 'unixepoch') AS first_failed_utc,
            strftime('%Y-%m-%d %H:%M:%f', r.buried_at, 'unixepoch') AS buried_utc,
            {exception}
        FROM {rows.format(table="dead_letters")}"""
    )
    db.execute("UPDATE meta SET value = '2' WHERE key = 'format'")  # min_reader stays 1: nothing that it reads changed
