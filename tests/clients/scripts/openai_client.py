"""One call of the OpenAI client, reported in lines of JSON. See tests/clients/openai.rs."""

import json
import os
import sys
import time

import httpx
import openai

attempts = 0


def count(_request):
    global attempts
    attempts += 1


def report(**what):
    print(json.dumps(what), flush=True)


client = openai.OpenAI(
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["KEY"],
    http_client=httpx.Client(event_hooks={"request": [count]}),
)
def chunks(**options):
    for chunk in client.chat.completions.create(
        model="deepseek-chat", messages=messages, stream=True, **options
    ):
        report(choices=len(chunk.choices), tokens=chunk.usage.total_tokens if chunk.usage else None)


messages = [{"role": "user", "content": "你好"}]
started = time.monotonic()
try:
    match sys.argv[1]:
        case "chat":
            response = client.chat.completions.create(model="deepseek-chat", messages=messages)
            report(content=response.choices[0].message.content, tokens=response.usage.total_tokens)
        case "stream":
            for chunk in client.chat.completions.create(
                model="deepseek-chat", messages=messages, stream=True
            ):
                report(content=chunk.choices[0].delta.content if chunk.choices else None)
        case "chunks":
            chunks()
        case "chunks_with_usage":
            chunks(stream_options={"include_usage": True})
        case "models":
            report(models=[model.id for model in client.models.list()])
    report(done=True)
# Where a stream breaks off, the client lets its HTTP library's error through.
except (openai.APIError, httpx.TransportError) as error:
    report(
        error=type(error).__name__,
        code=getattr(error, "code", None),
        attempts=attempts,
        seconds=time.monotonic() - started,
    )
