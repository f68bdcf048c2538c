"""One call of the OpenAI client, told in lines of JSON. See tests/clients/openai.rs."""

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


def tell(**what):
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
        tell(choices=len(chunk.choices), tokens=chunk.usage.total_tokens if chunk.usage else None)


messages = [{"role": "user", "content": "你好"}]
started = time.monotonic()
try:
    match sys.argv[1]:
        case "chat":
            answer = client.chat.completions.create(model="deepseek-chat", messages=messages)
            tell(content=answer.choices[0].message.content, tokens=answer.usage.total_tokens)
        case "stream":
            for chunk in client.chat.completions.create(
                model="deepseek-chat", messages=messages, stream=True
            ):
                tell(content=chunk.choices[0].delta.content if chunk.choices else None)
        case "chunks":
            chunks()
        case "chunks_with_usage":
            chunks(stream_options={"include_usage": True})
        case "models":
            tell(models=[model.id for model in client.models.list()])
    tell(done=True)
# Where a stream breaks off, the client lets its HTTP library's error through.
except (openai.APIError, httpx.TransportError) as error:
    tell(
        error=type(error).__name__,
        code=getattr(error, "code", None),
        attempts=attempts,
        seconds=time.monotonic() - started,
    )
