"""The web shop whose bottlenecks are recorded, under gunicorn."""

import hashlib
import os
import queue

import psycopg2
import redis

FILES = os.environ.get("SHOP_FILES", "")
DATABASE = os.environ.get("SHOP_DATABASE", "")
CACHE = os.environ.get("SHOP_CACHE", "")
POOL = int(os.environ.get("SHOP_POOL", "8"))

pool = queue.LifoQueue()
leaked = []
cache = None
if DATABASE:
    for _ in range(POOL):
        connection = psycopg2.connect(DATABASE)
        connection.autocommit = True
        pool.put(connection)
if CACHE:
    host, port = CACHE.rsplit(":", 1)
    cache = redis.Redis(host=host, port=int(port))


def query(*statements):
    """Runs statements on a connection of the pool, waiting for one."""
    connection = pool.get()
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        pool.put(connection)


def item(number):
    return query(f"SELECT id, stock, name FROM item WHERE id = {number % 1000}")


def order(number):
    return query(
        f"WITH taken AS (UPDATE item SET stock = stock - 1 WHERE id = {number % 1000} RETURNING id)"
        " INSERT INTO purchase (item) SELECT id FROM taken"
    )


def search(number):
    return query(f"SELECT count(*) FROM remark WHERE words LIKE '%{number % 1000}x%'")


def report(number):
    return query(f"SELECT {number}, pg_sleep(0.02)")


def cart(number):
    return len(cache.get(f"cart:{number % 100}") or b"")


def picture(number):
    with open(f"{FILES}/{number % 1000}", "rb") as file:
        return len(file.read())


def digests(number):
    digest = b""
    for _ in range(number):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def leak(kilobytes):
    leaked.append(os.urandom(kilobytes << 10))
    return len(leaked)


def hold(_):
    """The defect that loses a connection of the pool."""
    leaked.append(pool.get())
    return len(leaked)


PAGES = {page.__name__: page for page in (item, order, search, report, cart, picture, digests, leak, hold)}


def application(environ, start_response):
    _, page, number = environ["PATH_INFO"].split("/")
    body = str(PAGES[page](int(number))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
