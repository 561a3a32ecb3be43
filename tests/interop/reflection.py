"""A generic gRPC client: finds the services by reflection, as grpcurl does."""

import os

import grpc
from grpc_reflection.v1alpha import reflection_pb2

channel = grpc.insecure_channel(os.environ["NODE"])
call = channel.stream_stream(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
)
response = next(call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10))
names = {service.name for service in response.list_services_response.service}
for name in ("quorate.budget.v1.Budget", "quorate.admin.v1.Admin"):
    assert name in names, names
    print("ok   reflection: " + name)
