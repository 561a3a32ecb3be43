"""LiteLLM's hook `custom_auth`: each user, as a header names it, has a limit of tokens a minute. Runs inside of LiteLLM."""

import os

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth

TOKENS_A_MINUTE = int(os.environ["BENCH_TOKENS_A_MINUTE"])


async def who(request: Request, api_key: str) -> UserAPIKeyAuth:
    user = request.headers.get("x-user-id", "nobody")
    return UserAPIKeyAuth(api_key=f"sk-{user}", user_id=user, tpm_limit=TOKENS_A_MINUTE)
