"""How requests are read."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Wrong types are refused. Unknown fields are ignored, since clients send many that mean nothing here."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=())
