"""Sells one item after the other, for as long as it holds the token.

It is run by `fencepost lead`, which gives it the token and a connection string whose
sessions are guarded. It knows nothing of generations, leases or locks: a transaction
that comes too late fails at its commit, by the guard of the table.

  worker.py FOLDER    FOLDER/stop-in-transaction has it wait between reading and writing
"""

import os
import signal
import sys
import time

import psycopg2

folder = sys.argv[1]
token = os.environ["FENCEPOST_TOKEN"]
stopping = False


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)


def pause(read):
    """Waits in the middle of the transactions, for the demo to stop this process."""
    if os.path.exists(f"{folder}/stop-in-transaction"):
        print(f"{token} has read {read}, and is stopped", flush=True)
        open(f"{folder}/in-transaction", "w").close()
        while os.path.exists(f"{folder}/stop-in-transaction"):
            time.sleep(0.01)


def sell(sessions):
    """Reads what is left, and writes one less: a lost update where two do it at once."""
    left = {}
    for table, session in sessions.items():
        with session.cursor() as cursor:
            cursor.execute(f"select items_left from {table}")
            left[table] = cursor.fetchone()[0]
    pause(left)
    for table, session in sessions.items():
        try:
            with session, session.cursor() as cursor:
                cursor.execute(f"update {table} set items_left = %s, seller = %s", (left[table] - 1, token))
                cursor.execute(f"insert into {table}_sold values (%s)", (token,))
            print(f"{token} sold one of {table}, {left[table] - 1} left", flush=True)
        except psycopg2.Error as e:
            print(f"{token} is refused by {table}: {e.pgcode}", flush=True)


def main():
    url = os.environ["FENCEPOST_GUARDED_URL"]
    sessions = {table: psycopg2.connect(url) for table in ("plain", "guarded")}
    while not stopping:
        sell(sessions)
        time.sleep(0.05)


main()
