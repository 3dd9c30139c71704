"""Snapshots that are written block by block, and the images that are made of them: AWS's block size, its checks, and what moto forgets.

moto finds the addresses of a backend by the name of its module, which is why these say that they are of moto's.
"""

import base64
import datetime
import hashlib

from moto.core.exceptions import JsonRESTError
from moto.ebs import models as ebs
from moto.ebs.responses import EBSResponse
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.responses.amis import AmisResponse

from forgotten import after


class Snapshots:
    """How the account is set, and which tokens it has seen."""

    def __init__(self):
        self.encrypted = False
        self.by_token = {}
        self.registered_as = "available"

    def settle(self, ec2, state):
        self.registered_as = state
        for image in ec2.amis.values():
            if image.state == "pending":
                image.state = state

    def make_older(self, ec2, name, seconds):
        past = datetime.timedelta(seconds=seconds)
        if name in ec2.amis:
            ec2.amis[name].creation_date -= past
        else:
            ec2.snapshots[name].start_time -= past


SNAPSHOTS = Snapshots()


class Blocks(ebs.EBSBackend):
    """EBS direct APIs."""

    __module__ = ebs.EBSBackend.__module__

    # Bytes of every block (EBS direct APIs, "Block").
    BLOCK = 524_288

    def start_snapshot(self, *arguments, **named):
        snapshot = super().start_snapshot(*arguments, **named)
        snapshot.block_size = self.BLOCK
        self.ec2_backend.snapshots[snapshot.snapshot_id].status = "pending"
        return snapshot

    def put_snapshot_block(self, snapshot_id, block_index, block_data, checksum, checksum_algorithm, data_length):
        snapshot = self.snapshots.get(snapshot_id)
        if snapshot is None or snapshot_id not in self.ec2_backend.snapshots:
            raise refused(404, "ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.")
        if snapshot.status != "pending":
            raise refused(400, "ValidationException", "The snapshot is not pending")
        size = len(block_data)
        if size != self.BLOCK or int(data_length) != self.BLOCK:
            raise refused(400, "ValidationException", f"Block data has {size} bytes, and a block has {self.BLOCK}")
        if not 0 <= int(block_index) < snapshot.volume_size * 2048:
            raise refused(400, "ValidationException", f"There is no block {block_index} in {snapshot.volume_size} GiB")
        if checksum_algorithm != "SHA256" or checksum != digest(block_data):
            raise refused(400, "ValidationException", "The checksum is not that of the block")
        return super().put_snapshot_block(snapshot_id, block_index, block_data, checksum, checksum_algorithm, data_length)

    def complete(self, snapshot_id, count, checksum):
        """Checks what moto does not: how many blocks there are, and the digest of their digests."""
        blocks = self.snapshots[snapshot_id].blocks
        linear = b"".join(hashlib.sha256(blocks[index].block_data).digest() for index in sorted(blocks))
        if count != len(blocks):
            raise refused(400, "ValidationException", f"{count} changed blocks, and {len(blocks)} were put")
        if checksum is not None and checksum != digest(linear):
            raise refused(400, "ValidationException", "The checksum is not that of the blocks")

    def complete_snapshot(self, snapshot_id):
        status = super().complete_snapshot(snapshot_id)
        self.ec2_backend.snapshots[snapshot_id].status = "completed"
        return status


def digest(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def refused(status, code, message):
    error = JsonRESTError(code, message)
    error.code = status
    return error


def start_snapshot(response, original=EBSResponse.start_snapshot):
    """The same token starts the same snapshot."""
    token = response._get_param("ClientToken")
    if token not in SNAPSHOTS.by_token:
        told = original(response)
        if SNAPSHOTS.encrypted:
            told.result["KmsKeyArn"] = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
            told.result["SseType"] = "sse-kms"
        if token is None:
            return told
        SNAPSHOTS.by_token[token] = told
    return SNAPSHOTS.by_token[token]


def complete_snapshot(response, original=EBSResponse.complete_snapshot):
    count, checksum = response._get_param("ChangedBlocksCount"), response._get_param("Checksum")
    response.ebs_backend.complete(response._get_param("SnapshotId"), int(count), checksum)
    return original(response)


def register_image(response, original=AmisResponse.register_image):
    """What EC2 refuses."""
    ec2 = response.ec2_backend
    name = response._get_param("Name")
    if taken := [image.id for image in ec2.amis.values() if image.name == name]:
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {taken[0]}")
    for disk in response._get_param("BlockDeviceMappings", []):
        if (made_of := disk.get("Ebs", {}).get("SnapshotId")) is None:
            continue
        if "Encrypted" in disk["Ebs"]:
            raise EC2ClientError("InvalidBlockDeviceMapping", "the encrypted flag cannot be specified since a snapshot is")
        snapshot = ec2.snapshots.get(made_of)
        if snapshot is None:
            raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{made_of}' does not exist.")
        if snapshot.status != "completed":
            raise EC2ClientError("IncorrectState", f"The snapshot '{made_of}' is not completed")
    return original(response)


def keep_what_was_registered(response, result):
    """An image is what it was registered as."""
    image = response.ec2_backend.amis[result.result["ImageId"]]
    image.disks = response._get_param("BlockDeviceMappings", [])
    image.state = SNAPSHOTS.registered_as
    image.ena_support = response._get_param("EnaSupport")
    for key, name in [
        ("Architecture", "architecture"),
        ("BootMode", "boot_mode"),
        ("ImdsSupport", "imds_support"),
        ("RootDeviceName", "root_device_name"),
        ("VirtualizationType", "virtualization_type"),
    ]:
        if value := response._get_param(key):
            setattr(image, name, value)
    for specification in response._get_param("TagSpecifications", []):
        if specification["ResourceType"] == "image":
            image.add_tags({tag["Key"]: tag["Value"] for tag in specification["Tags"]})
    for disk in image.disks:
        if made_of := disk.get("Ebs", {}).get("SnapshotId"):
            response.ec2_backend.snapshots[made_of].from_ami = image.id


def disks(image, original=Ami.block_device_mappings.fget):
    return getattr(image, "disks", None) or original(image)


def read_back(client, wish):
    """snapshot, file: writes the file as a volume of the snapshot would read, for the part that has blocks; tells how many there are."""
    told = client.list_snapshot_blocks(SnapshotId=wish["snapshot"])
    with open(wish["file"], "wb") as disk:
        for block in told["Blocks"]:
            got = client.get_snapshot_block(SnapshotId=wish["snapshot"], BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
            data = got["BlockData"].read()
            if got["Checksum"] != digest(data):
                raise ValueError(f"block {block['BlockIndex']} is not what its checksum says")
            disk.seek(block["BlockIndex"] * told["BlockSize"])
            disk.write(data)
    return {"blocks": len(told["Blocks"]), "block_size": told["BlockSize"], "gib": told["VolumeSize"]}


def install():
    ebs.ebs_backends.backend = Blocks
    EBSResponse.start_snapshot = start_snapshot
    EBSResponse.complete_snapshot = complete_snapshot
    AmisResponse.register_image = register_image
    after(AmisResponse, "register_image")(keep_what_was_registered)
    Ami.block_device_mappings = property(disks)
