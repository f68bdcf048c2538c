"""A pytest plugin for openai-python's own API tests: each request says, in a header, which response its
type makes the test expect, so that an upstream that knows no API can give it. See
tests/clients/openai_own_tests.rs."""

import datetime
import inspect
import json
import os
import types
import typing

import httpx
import openai
import openai._base_client as base
from openai._types import NoneType
from openai._utils import is_given
from openai.types import CreateEmbeddingResponse, Embedding
from pydantic import BaseModel

KEY = os.environ["KEY"]


def example(expected):
    """The least JSON value of this type."""
    if type(expected).__name__ == "TypeAliasType":
        return example(expected.__value__)
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated or type(expected).__name__ == "_AnnotatedAlias":
        return example(args[0])
    if origin in (typing.Union, types.UnionType):
        return example(next(arg for arg in args if arg is not NoneType))
    if origin is typing.Literal or str(origin) == "typing_extensions.Literal":
        return args[0]
    if origin in (list, tuple, set) or expected in (list, tuple):
        return []
    if origin is dict or expected is dict:
        return {}
    if expected is bool:
        return True
    if expected is int:
        return 1
    if expected is float:
        return 1.5
    if expected is str:
        return "x"
    if expected is datetime.datetime:
        return "2026-11-22T00:00:00Z"
    if expected is datetime.date:
        return "2026-11-22"
    if expected in (None, NoneType):
        return None
    if expected is CreateEmbeddingResponse:
        # The one list that its client does not take when it is empty.
        return {"object": "list", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1},
                "data": [example(Embedding)]}
    model = origin or expected
    if inspect.isclass(model) and issubclass(model, BaseModel):
        fields = expected.model_fields if hasattr(expected, "model_fields") else model.model_fields
        return {
            field.alias or name: example(field.annotation)
            for name, field in fields.items()
            if field.is_required()
        }
    return {}


def expecting(cast_to, options, stream):
    headers = dict(options.headers) if is_given(options.headers) else {}
    if stream:
        headers["x-test-type"] = "text/event-stream"
    elif cast_to is str:
        headers["x-test-type"] = "text/plain"
    response = "text" if cast_to is str else json.dumps(example(cast_to))
    return options.model_copy(update={"headers": {**headers, "x-test-response": response}})


def wrapped(request):
    def wrapper(self, cast_to, options, *args, **kwargs):
        return request(self, cast_to, expecting(cast_to, options, kwargs.get("stream")), *args, **kwargs)

    return wrapper


base.SyncAPIClient.request = wrapped(base.SyncAPIClient.request)
base.AsyncAPIClient.request = wrapped(base.AsyncAPIClient.request)


def holding(initialise):
    """The tests' keys become an issued one."""

    def initialised(self, *args, **kwargs):
        for name in ("api_key", "admin_api_key"):
            if str(kwargs.get(name, "")).startswith("My "):
                kwargs[name] = KEY
        initialise(self, *args, **kwargs)

    return initialised


for client in (openai.OpenAI, openai.AsyncOpenAI):
    client.__init__ = holding(client.__init__)
