"""boto3 against the simulated Bedrock itself: what the gateway is tested with must satisfy AWS's own client."""

import json
import os

import boto3
import botocore

from conversations import same

client = boto3.client(
    "bedrock-runtime",
    endpoint_url="http://" + os.environ["PROVIDER"],
    region_name=os.environ["AWS_REGION"],
    aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
    aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
)
model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
hello = [{"role": "user", "content": [{"text": "Hello!"}]}]

answer = client.converse(modelId=model, messages=hello, inferenceConfig={"maxTokens": 50})
assert answer["output"]["message"]["content"][0]["text"] and answer["usage"]["outputTokens"] > 0
events = list(client.converse_stream(modelId=model, messages=hello)["stream"])
same([next(iter(event)) for event in events][0], "messageStart")
same([next(iter(event)) for event in events][-1], "metadata")
body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]})
assert json.loads(client.invoke_model(modelId=model, body=body)["body"].read())["content"]
chunks = list(client.invoke_model_with_response_stream(modelId=model, body=body)["body"])
same(json.loads(chunks[-1]["chunk"]["bytes"])["type"], "message_stop")
wrong = boto3.client("bedrock-runtime", endpoint_url="http://" + os.environ["PROVIDER"], region_name=os.environ["AWS_REGION"], aws_access_key_id="AKIDOTHER", aws_secret_access_key="wrong")
try:
    wrong.converse(modelId=model, messages=hello)
    raise SystemExit("a wrong signature was accepted")
except botocore.exceptions.ClientError as error:
    same(error.response["ResponseMetadata"]["HTTPStatusCode"], 403)
print("ok   boto3 and the simulated Bedrock")
