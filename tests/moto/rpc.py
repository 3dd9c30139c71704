"""Smithy's RPC v2 in CBOR, which the SDK for Rust speaks to CloudWatch and moto does not know: its requests are put to moto by boto3."""

import cbor2
from botocore import xform_name
from botocore.exceptions import ClientError

PROTOCOL = "rpc-v2-cbor"

# By the name in the request's path.
SERVICES = {"GraniteServiceVersion20100801": "cloudwatch"}


def answer(ask, path, body):
    """Status, headers and body for a request to /service/NAME/operation/OPERATION; `ask` puts it in another protocol."""
    _, _, service, _, operation = path.split("/")
    wish = {"service": SERVICES[service], "operation": xform_name(operation), "arguments": cbor2.loads(body) if body else {}}
    try:
        return 200, headers(), cbor2.dumps(ask(wish), datetime_as_timestamp=True)
    except ClientError as refused:
        told = refused.response["Error"]
        return error(refused.response["ResponseMetadata"]["HTTPStatusCode"], told["Code"], told["Message"])


def error(status, code, message):
    """The same for a refusal."""
    return status, headers(), cbor2.dumps({"__type": code, "message": message})


def headers():
    return [("Content-Type", "application/cbor"), ("smithy-protocol", PROTOCOL)]
