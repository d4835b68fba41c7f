"""A stand-in for hashicorp/google: its schema over Terraform's plugin protocol 6, and made-up values where Google gives some.

It shows that a configuration fits the schema and is wired as meant. It does not show that Google accepts it: the real provider's
checks of values, and the API's, are not here. Runs under an interpreter of its own (`requirements/terraform-standin.txt`).
"""
# ruff: noqa: N802 -- the methods are named by the protocol

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgpack
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tf.gen import grpc_controller_pb2, grpc_controller_pb2_grpc, grpc_stdio_pb2_grpc
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

MAGIC = ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2")
SCHEMA = Path(__file__).with_name("google_schema.json")
UNKNOWN = msgpack.ExtType(0, b"\x00")
FORCES_NEW = frozenset({"name", "project", "region", "location", "account_id", "service", "role", "member"})
TARGETS = ("app_engine_http_target", "http_target", "pubsub_target")
_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4, "group": 5}
_FLAGS = ("required", "optional", "computed", "sensitive")

Value = Any
Block = Mapping[str, Any]


def decode(value: pb.DynamicValue) -> Value:
    return msgpack.unpackb(value.msgpack, raw=False, strict_map_key=False) if value.msgpack else None


def encode(value: Value) -> pb.DynamicValue:
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def is_unknown(value: Value) -> bool:
    return isinstance(value, msgpack.ExtType)


def inner_blocks(block: Block, value: Mapping[str, Value]) -> Iterator[tuple[str, Block, list[Value]]]:
    """Each nested block type with its instances in `value`."""
    for name, nested in block.get("block_types", {}).items():
        held = value.get(name)
        if held is None or is_unknown(held):
            continue
        yield name, nested["block"], held if isinstance(held, list) else [held]


def planned(block: Block, proposed: Value, config: Value, prior: Value, fill: Mapping[str, str]) -> Value:
    """The proposed value with what Google decides still unknown, or as it was before."""
    if proposed is None or is_unknown(proposed):
        return proposed
    result = dict(proposed)
    for name, attribute in block.get("attributes", {}).items():
        if not attribute.get("computed") or (config or {}).get(name) is not None:
            continue
        before = (prior or {}).get(name)
        result[name] = before if before is not None else fill.get(name, UNKNOWN)
    for name, inner, held in inner_blocks(block, proposed):
        made = [
            planned(inner, one, _at(config, name, i), _at(prior, name, i), {}) for i, one in enumerate(held)
        ]
        result[name] = made if isinstance(proposed[name], list) else made[0]
    return result


def _at(value: Value, name: str, index: int) -> Value:
    held = (value or {}).get(name)
    if isinstance(held, list):
        return held[index] if index < len(held) else None
    return held


def made_up(block: Block, value: Value, seed: str) -> Value:
    """The value with its unknowns replaced by values of the right type, the same ones each time."""
    if value is None:
        return None
    result = dict(value)
    for name, attribute in block.get("attributes", {}).items():
        if is_unknown(result.get(name)):
            result[name] = _invented(attribute["type"], f"{seed}/{name}")
    for name, inner, held in inner_blocks(block, value):
        made = [made_up(inner, one, f"{seed}/{name}{i}") for i, one in enumerate(held)]
        result[name] = made if isinstance(value[name], list) else made[0]
    return result


def _invented(kind: Any, seed: str) -> Value:
    digest = hashlib.sha256(seed.encode()).hexdigest()
    match kind:
        case "string":
            return f"made-up-{digest[:12]}"
        case "number":
            return int(digest[:6], 16)
        case "bool":
            return False
        case ["map" | "object", *_]:
            return {}
        case _:
            return []


def account_names(account_id: str, project: str) -> dict[str, str]:
    """What Google calls a service account, so that rights can be told apart by whose they are."""
    email = f"{account_id}@{project}.iam.gserviceaccount.com"
    name = f"projects/{project}/serviceAccounts/{email}"
    return {"email": email, "id": name, "member": f"serviceAccount:{email}", "name": name}


def project_number(project: str) -> str:
    return str(100_000_000_000 + int(hashlib.sha256(project.encode()).hexdigest()[:8], 16))


def problems(type_name: str, block: Block, config: Value) -> Iterator[str]:
    """What the provider refuses beyond what Terraform itself reads in the schema."""
    if config is None or is_unknown(config):
        return
    for name, attribute in block.get("attributes", {}).items():
        only_read = attribute.get("computed") and not attribute.get("optional")
        if only_read and config.get(name) is not None:
            yield f"{name}: is decided by the provider and cannot be set"
    if type_name == "google_cloud_scheduler_job":
        given = [name for name in TARGETS if config.get(name)]
        if len(given) != 1:
            yield f"{type_name}: exactly one of {', '.join(TARGETS)} must be given, not {len(given)}"
    for _name, inner, held in inner_blocks(block, config):
        for one in held:
            yield from problems("", inner, one)


def refused(summaries: Iterator[str]) -> list[pb.Diagnostic]:
    return [pb.Diagnostic(severity=pb.Diagnostic.ERROR, summary=one) for one in summaries]


def block_message(block: Block) -> pb.Schema.Block:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(attribute["type"]).encode(),
                **{flag: True for flag in _FLAGS if attribute.get(flag)},
            )
            for name, attribute in block.get("attributes", {}).items()
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                block=block_message(nested["block"]),
                nesting=_NESTING[nested["nesting_mode"]],
                min_items=nested.get("min_items", 0),
                max_items=nested.get("max_items", 0),
            )
            for name, nested in block.get("block_types", {}).items()
        ],
    )


def schema_message(schema: Mapping[str, Any]) -> pb.Schema:
    return pb.Schema(version=schema.get("version", 0), block=block_message(schema["block"]))


class Provider(rpc.ProviderServicer):
    """Answers Terraform from the schema alone."""

    def __init__(self, schemas: Mapping[str, Any], stop: Callable[[], None]) -> None:
        self._provider = schemas["provider"]
        self._resources = schemas["resource_schemas"]
        self._data = schemas.get("data_source_schemas", {})
        self._settings: dict[str, str] = {}
        self._stop = stop

    def GetProviderSchema(self, request: Any, context: Any) -> Any:
        return pb.GetProviderSchema.Response(
            provider=schema_message(self._provider),
            resource_schemas={name: schema_message(one) for name, one in self._resources.items()},
            data_source_schemas={name: schema_message(one) for name, one in self._data.items()},
        )

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateProviderConfig.Response()

    def ConfigureProvider(self, request: Any, context: Any) -> Any:
        config = decode(request.config) or {}
        known = {name: config.get(name) for name in ("project", "region")}
        self._settings = {name: value for name, value in known.items() if isinstance(value, str)}
        return pb.ConfigureProvider.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:
        block = self._resources[request.type_name]["block"]
        found = problems(request.type_name, block, decode(request.config))
        return pb.ValidateResourceConfig.Response(diagnostics=refused(found))

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateDataResourceConfig.Response()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:
        block = self._resources[request.type_name]["block"]
        state = json.loads(request.raw_state.json)
        for name in (*block.get("attributes", {}), *block.get("block_types", {})):
            state.setdefault(name, None)
        return pb.UpgradeResourceState.Response(upgraded_state=encode(state))

    def ReadResource(self, request: Any, context: Any) -> Any:
        return pb.ReadResource.Response(new_state=request.current_state, private=request.private)

    def PlanResourceChange(self, request: Any, context: Any) -> Any:
        block = self._resources[request.type_name]["block"]
        prior, config = decode(request.prior_state), decode(request.config)
        state = planned(block, decode(request.proposed_new_state), config, prior, self._settings)
        response = pb.PlanResourceChange.Response(planned_state=encode(state))
        for name in sorted(FORCES_NEW & set(block["attributes"])):
            if prior and state and not is_unknown(state[name]) and state[name] != prior.get(name):
                response.requires_replace.add().steps.add(attribute_name=name)
        return response

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:
        block = self._resources[request.type_name]["block"]
        wanted = decode(request.planned_state)
        if request.type_name == "google_service_account" and wanted:
            wanted |= account_names(wanted["account_id"], wanted["project"])
        seed = f"{request.type_name}/{(wanted or {}).get('project')}/{(wanted or {}).get('name')}"
        return pb.ApplyResourceChange.Response(new_state=encode(made_up(block, wanted, seed)))

    def ReadDataSource(self, request: Any, context: Any) -> Any:
        block = self._data[request.type_name]["block"]
        config = decode(request.config)
        state = planned(block, config, config, None, self._settings)
        if request.type_name == "google_project":
            state |= {"number": project_number(config["project_id"])}  # part of the addresses of Cloud Run
        return pb.ReadDataSource.Response(state=encode(made_up(block, state, request.type_name)))

    def StopProvider(self, request: Any, context: Any) -> Any:
        self._stop()
        return pb.StopProvider.Response()


class Controller(grpc_controller_pb2_grpc.GRPCControllerServicer):
    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def Shutdown(self, request: Any, context: Any) -> Any:
        self._stop()
        return grpc_controller_pb2.Empty()


class Stdio(grpc_stdio_pb2_grpc.GRPCStdioServicer):
    def StreamStdio(self, request: Any, context: Any) -> Any:
        return iter(())


def certificate() -> tuple[bytes, bytes, bytes]:
    """A self-signed certificate of localhost: its key and itself in PEM, itself in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM), made.public_bytes(Encoding.DER)


def main() -> None:
    if os.environ.get(MAGIC[0]) != MAGIC[1]:
        sys.exit("this is a Terraform provider: Terraform starts it, see tests/compat/test_terraform.py")
    (schemas,) = json.loads(SCHEMA.read_text())["provider_schemas"].values()
    over = threading.Event()
    key, certificate_pem, certificate_der = certificate()
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    rpc.add_ProviderServicer_to_server(Provider(schemas, over.set), server)
    grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(Controller(over.set), server)
    grpc_stdio_pb2_grpc.add_GRPCStdioServicer_to_server(Stdio(), server)
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/provider.sock"
        server.add_secure_port(f"unix:{address}", grpc.ssl_server_credentials([(key, certificate_pem)]))
        server.start()
        shown = base64.b64encode(certificate_der).rstrip(b"=").decode()
        print(f"1|6|unix|{address}|grpc|{shown}", flush=True)
        over.wait()
        server.stop(grace=0.1).wait()


if __name__ == "__main__":
    main()
