"""Writes docs/compatibility.md from what the clients recorded, or checks that it says the same. Arguments: results, document, write|check."""

import json
import sys
from importlib import metadata

results, document, mode = sys.argv[1:4]
records = [json.loads(line) for line in open(results)]
BACKENDS = {"openai": "OpenAI", "azure": "AzureOpenAI", "anthropic": "Anthropic", "bedrock": "AWSBedrock", "bedrock-anthropic": "AWSAnthropic"}
clients = list(dict.fromkeys(record["client"] for record in records))
lines = [
    "# Compatibility",
    "",
    "Which client holds which conversation with which kind of backend, through one gateway. Written by `tests/interop/run BINARY --write`",
    "from what the official SDKs did; the same run without `--write` fails when this page is out of date. The backends are those of the",
    "[simulated provider](simulated-provider.md), which checks requests as the real ones do (Anthropic refuses unknown fields, Bedrock",
    "checks signatures and turns). No real provider was called.",
    "",
    "yes: holds; **no**: fails; –: the client does not try it.",
]
for client in clients:
    own = [record for record in records if record["client"] == client]
    conversations = list(dict.fromkeys(record["conversation"] for record in own))
    lines += ["", f"## {client}", "", "| conversation | " + " | ".join(BACKENDS.values()) + " |", "| --- |" + " --- |" * len(BACKENDS)]
    for conversation in conversations:
        cells = []
        for backend in BACKENDS:
            found = [record["ok"] for record in own if record["conversation"] == conversation and record["backend"] == backend]
            cells.append("–" if not found else "yes" if all(found) else "**no**")
        lines.append(f"| {conversation} | " + " | ".join(cells) + " |")
versions = [f"{name} {metadata.version(name)}" for name in ["openai", "anthropic", "langchain-openai", "langchain-anthropic", "litellm", "boto3"]]
lines += ["", "Versions: " + ", ".join(versions) + " from PyPI; those of npm are in tests/interop/package.json."]
text = "\n".join(lines) + "\n"
if mode == "write":
    open(document, "w").write(text)
elif open(document).read() != text:
    sys.exit(f"{document} is out of date: run tests/interop/run BINARY --write and commit what it changed")
