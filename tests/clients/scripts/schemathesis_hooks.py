"""What schemathesis is to know of the admin API beside its OpenAPI document.

Every request stays as valid, or as wrong, as it was made. What JSON Schema cannot say is put right, as
a check would else expect the API to accept what only another field makes wrong.
"""

import datetime
import itertools
import re

import schemathesis

_LATEST_MILLISECOND = 221_845_391_999_999
_CURSOR = re.compile(r"n?[0-9]{1,18}|l[0-9]{1,18}\.([0-9a-f]{2})*|s[0-9]{1,18}\.[0-6][0-9a-f]{15}")
_TAG = r'(W/)?"[0-9a-f]{32}"'
_TAGS = re.compile(rf"\*|{_TAG}( *, *{_TAG})*")
_sources = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    # Each request comes from a source of its own, as a source has few attempts with a wrong token.
    number = next(_sources)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    if isinstance(case.body, dict):
        case.body = {name: _in_digits(value) for name, value in case.body.items()}
        if case.operation.label == "POST /admin/keys":
            _expires_later(case.body)
            if case.meta is not None and case.meta.phase.name.value == "stateful":
                _issue_one(case.body)
    if _TAGS.fullmatch(str(case.headers.get("If-Match"))):
        # Nobody can guess in which state a key is.
        case.headers["If-Match"] = "*"
    if case.operation.label == "POST /admin/keys/import" and isinstance(case.body, str):
        # What a file of keys is no schema can say.
        case.body = f"key,label,daily_limit\ntrial-key-imported-{number},Alice,5\n"
    if case.operation.label == "POST /admin/keys":
        _name_once(case.headers, number)
    if case.operation.label == "GET /admin/usage" and isinstance(case.query, dict):
        _ask_for_one_range(case.query)
        _ask_for_all_of_csv(case.query)
    if case.operation.label == "GET /admin/keys" and isinstance(case.query, dict):
        _begin_other_orders(case.query)


def _in_digits(value):
    """JSON Schema takes 5.0 for an integer; the API wants its digits."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _issue_one(body):
    """The links go on with a key that is issued alone."""
    count = body.get("count")
    if type(count) is int and 1 <= count <= 1000:
        del body["count"]


def _name_once(headers, number):
    """A name is of one request."""
    if re.fullmatch(r'"?[A-Za-z0-9_.:-]{1,200}"?', str(headers.get("Idempotency-Key", "")).strip()):
        headers["Idempotency-Key"] = f"request-{number}"


def _begin_other_orders(query):
    """A cursor of one order is none of another."""
    after = str(query.get("after"))
    fits = {"label": "l.*", "nearest_limit": "[ns].*"}.get(str(query.get("sort")), "[0-9]+")
    if _CURSOR.fullmatch(after) and not re.fullmatch(fits, after):
        del query["after"]


def _ask_for_all_of_csv(query):
    """CSV tells all rows."""
    if query.get("format") == "csv":
        for name in ("limit", "after"):
            if re.fullmatch("[0-9]{1,19}", str(query.get(name))):
                del query[name]


def _expires_later(body):
    """A new key expires in the future."""
    expires_at = body.get("expires_at")
    in_milliseconds = type(expires_at) is int and 0 <= expires_at <= _LATEST_MILLISECOND
    if in_milliseconds or _is_time(expires_at):
        body["expires_at"] = "2999-12-31T00:00:00Z"


def _is_time(text):
    if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}($|T)", str(text)):
        return False
    try:
        return 1970 <= datetime.datetime.fromisoformat(text).year < 9000
    except (TypeError, ValueError):
        return False


def _ask_for_one_range(query):
    """One day, or a range of at most 365 more."""
    days = {name: _day(query.get(name)) for name in ("day", "from", "to")}
    if days["day"] and ("from" in query or "to" in query):
        del query["day"]
    wrong_to = "to" in query and not days["to"]
    if days["from"] and not wrong_to:
        to = days["to"] or datetime.date.today()
        if not 0 <= (to - days["from"]).days <= 365:
            query["to"] = query["from"]


def _day(text):
    try:
        return datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        return None
