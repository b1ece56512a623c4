from arcmtp.model.formats import Matrix

__all__ = ["Matrix"]
