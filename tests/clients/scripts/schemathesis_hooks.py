"""What schemathesis needs to know of the admin API beside its OpenAPI document.

Every request stays as valid or invalid as schemathesis generated it. What JSON Schema cannot express is
corrected: a check would expect the API to accept a value that only another field makes invalid.
"""

import datetime
import itertools
import re

import schemathesis

_MAX_MILLISECONDS = 221_845_391_999_999
_CURSOR = re.compile(
    r"n?[0-9]{1,18}|l[0-9]{1,18}\.([0-9a-f]{2})*|"
    r"s[0-9]{1,18}\.([0-6][0-9a-f]{2}|7[0-9a-e][0-9a-f]|7f[0-9a-e])[0-9a-f]{13}"
)
_TAG = r'(W/)?"[0-9a-f]{32}"'
_TAGS = re.compile(rf"\*|{_TAG}([ \t]*,[ \t]*{_TAG})*")
_NAME = r"[A-Za-z0-9_.:-]{1,200}"
_NAME_OR_QUOTED = re.compile(rf'{_NAME}|"{_NAME}"')
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?")
# Keys that one request creates: the store stays small enough for lists to be fast.
_MAX_KEYS = 20
_sources = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    # Each request comes from a different address, as an address has few attempts with a wrong token.
    number = next(_sources)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    if isinstance(case.body, dict):
        case.body = {name: _as_integer(value) for name, value in case.body.items()}
        if case.operation.label == "POST /admin/keys":
            _set_future_expiry(case.body)
            _limit_count(case.body)
            if case.meta is not None and case.meta.phase.name.value == "stateful":
                _create_one(case.body)
    if _TAGS.fullmatch(str(case.headers.get("If-Match"))):
        # The current version of a key cannot be guessed.
        case.headers["If-Match"] = "*"
    if case.operation.label == "POST /admin/keys/import" and isinstance(case.body, str):
        # No schema describes a file of keys.
        case.body = f"key,label,daily_limit\ntrial-key-imported-{number},Alice,5\n"
    if case.operation.label == "POST /admin/keys":
        _set_unique_idempotency_key(case.headers, number)
    if case.operation.label == "GET /admin/usage" and isinstance(case.query, dict):
        _limit_to_one_range(case.query)
        _remove_paging_of_csv(case.query)
    if case.operation.label == "GET /admin/keys" and isinstance(case.query, dict):
        _remove_cursor_of_other_order(case.query)


def _as_integer(value):
    """JSON Schema accepts 5.0 as an integer; the API requires digits."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _create_one(body):
    """The links continue with a key that is created alone."""
    if _is_valid_count(body.get("count")):
        del body["count"]


def _limit_count(body):
    if _is_valid_count(body.get("count")):
        body["count"] = min(body["count"], _MAX_KEYS)


def _is_valid_count(count):
    return type(count) is int and 1 <= count <= 1000


def _set_unique_idempotency_key(headers, number):
    """An idempotency key belongs to one request."""
    if _NAME_OR_QUOTED.fullmatch(str(headers.get("Idempotency-Key"))):
        headers["Idempotency-Key"] = f"request-{number}"


def _remove_cursor_of_other_order(query):
    """A cursor is valid for the order that it comes from."""
    after = str(query.get("after"))
    fits = {"label": "l.*", "nearest_limit": "[ns].*"}.get(str(query.get("sort")), "[0-9]+")
    if _CURSOR.fullmatch(after) and not re.fullmatch(fits, after):
        del query["after"]


def _remove_paging_of_csv(query):
    """CSV contains all rows."""
    if query.get("format") == "csv":
        for name, minimum, maximum in (("limit", 1, 1000), ("after", 0, 2**63 - 1)):
            if re.fullmatch("0|[1-9][0-9]{0,18}", str(query.get(name))) and minimum <= int(query[name]) <= maximum:
                del query[name]


def _set_future_expiry(body):
    """A new key expires in the future."""
    expires_at = body.get("expires_at")
    in_milliseconds = type(expires_at) is int and 0 <= expires_at <= _MAX_MILLISECONDS
    if in_milliseconds or _is_time(expires_at):
        body["expires_at"] = "2999-12-31T00:00:00Z"


def _is_time(text):
    if not _TIME.fullmatch(str(text)):
        return False
    try:
        return 1970 <= datetime.datetime.fromisoformat(text).year < 9000
    except (TypeError, ValueError):
        return False


def _limit_to_one_range(query):
    """One day, or a range of at most 365 more."""
    days = {name: _day(query.get(name)) for name in ("day", "from", "to")}
    if days["day"] and ("from" in query or "to" in query):
        del query["day"]
    wrong_to = "to" in query and not days["to"]
    if days["from"] and not wrong_to:
        to = days["to"] or datetime.date.today()
        # The gateway's day may be another one.
        if not 1 <= (to - days["from"]).days <= 364:
            query["to"] = query["from"]


def _day(text):
    try:
        return datetime.date.fromisoformat(text)
    except (TypeError, ValueError):
        return None
