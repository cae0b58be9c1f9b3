"""The way back to an older release: a state.db as the first one wrote it.

    version 2     message.saved: what SAVEDATE tells is forgotten
    seal, figures, summary
                  tables that an older release does not keep up; ours would take its changes for damage

All else is the same in every version: UIDs, flags, modseqs and keywords stay. What single users have seen
(`state_readers`) waits for this release: an older one does not look at it, and cannot make it wrong. The
next open by this release raises the schema again (`store.state_database`). RELIABILITY F59.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from mailserver.store.contract import StoreFailure
from mailserver.store.state_database import SCHEMA_VERSION


def downgrade(directory: str) -> bool:
    """Whether there was a state.db; it is as an older release knows it, by one durable transaction.

    The caller has the account alone (`store.account_use.alone`). Raises StoreFailure, and it is as it was.
    *Blocking.*
    """
    path = os.path.join(directory, "state.db")
    if not os.path.exists(path):
        return False
    try:
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not 1 <= version <= SCHEMA_VERSION:
                raise StoreFailure(f"{path} is of version {version}, which this release does not know")
            if version > 1:
                db.execute("ALTER TABLE message DROP COLUMN saved")
            for table in ("seal", "figures", "summary"):
                db.execute(f"DROP TABLE IF EXISTS {table}")
            db.execute("PRAGMA user_version=1")
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreFailure(f"{path}: {error}") from error
    return True
