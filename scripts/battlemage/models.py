"""Networks of the published models, of which nothing is loaded."""

from typing import Any

from arcmtp.formats.matrix import Requant
from arcmtp.gguf_header import TensorInfo
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict.published import DENSE, MOE, VOCAB_USED, Header, Mix, stock_q4_0, unsloth_q4_k_m
from arcmtp.runtime.device import Device

__all__ = [
    "CONTEXT", "DENSE", "DRAFT_TOKENS", "MOE", "Header", "Mix", "WideHeader", "network", "stock_q4_0", "unsloth_q4_k_m",
]  # fmt: skip
CONTEXT = 8192
DRAFT_TOKENS = 65_536  # of a network whose drafts are of some tokens


class WideHeader(Header):
    """Of a model that was not trained in BF16: F32 tensors need F32."""

    def in_bf16(self, tensor: TensorInfo) -> bool:
        return False


def network(
    device: Device, config: Config, mix: Mix, requant: Requant | None = None, slots: int = 1, context: int = CONTEXT,
    **of_drafts: Any,
) -> Network:  # fmt: skip
    """A model's network with its MTP block, of which nothing is loaded. of_drafts: further `NetworkOptions`."""
    file = Header(config, mix)
    options = NetworkOptions(context, VOCAB_USED, slots, mtp=file, requant=requant, **of_drafts)
    return Network(file, config, options, device)
