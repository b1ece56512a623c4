"""Models of a hub such as huggingface.co, by huggingface_hub, which knows cache, token and endpoint and whether to be
offline.

`Repository.open` lists the GGUF files of a repository with their bytes, `Repository.find` the model that a name means,
`Repository.fetch` brings it into the cache and gives its path, and `Repository.header` reads its header alone.
"""

from arcmtp.hub.errors import HubError
from arcmtp.hub.names import PREFIX, HubFile, HubModel, HubName
from arcmtp.hub.repository import Repository

__all__ = ["PREFIX", "HubError", "HubFile", "HubModel", "HubName", "Repository"]
